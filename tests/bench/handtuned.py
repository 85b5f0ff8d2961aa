"""The best plain PyTorch training loop known here for GN-LeNet at batch 8 on one core: the yardstick.

    python tests/bench/handtuned.py --seconds 3 --processes 2

starts one process per core and prints one JSON line with steps/s of each and of all. Nothing of
``decentral`` is used. What the loop does, and what each trick gave on 2 cores at 2.8 GHz with AVX-512, where
the loop takes 8.3 ms a step undisturbed:

* malloc thresholds raised before the process starts: no page faults for the megabyte-sized activations
  (960 faults a step without, 1.3 times slower; values above 32 MB work too with today's glibc);
* channels_last inputs: max-pooling of contiguous tensors is 8 times slower, convolutions 1.3 times;
* weights as O, H, W, I views: no copy before each convolution (2 to 5 % of a step);
* ReLU after pooling, in place: the same bits from a quarter of the memory (4 %);
* parameters and gradients in two flat buffers: one update and one clearing instead of 14;
* uint8 images in N, H, W, C order, normalised per batch; the order of rows drawn ahead.

Tried without gain: the first convolution as 15-channel 5x1 convolution of shifted rows or as one matrix
product, and transparent huge pages; ONEDNN_MAX_CPU_ISA=AVX2 is 1.4 times slower. Gradients written by
hand save 6 %, but then it is no plain loop. Convolutions (oneDNN brgemm and jit) are 75 % of a step at 80 to
100 % of the speed of the same core's large matrix product, 90 to 120 GFLOP/s: that bounds every loop.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from math import prod

import torch
from torch.nn import Parameter
from torch.nn.functional import conv2d, cross_entropy, group_norm, linear, max_pool2d

MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "67108864",
}

BATCH = 8
SHARD_ROWS = 830
CHUNK_STEPS = 16

_SHAPES = [
    *[(32, 3, 5, 5), (32,), (32,), (32,)],
    *[(32, 32, 5, 5), (32,), (32,), (32,)],
    *[(64, 32, 5, 5), (64,), (64,), (64,)],
    *[(10, 1024), (10,)],
]


def synthetic(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, uint8 (rows, 32, 32, 3), and classes, int64 (rows,), the same in every process."""
    draw = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (rows, 32, 32, 3), dtype=torch.uint8, generator=draw)
    return images, torch.randint(0, 10, (rows,), generator=draw)


class HandTuned:
    """GN-LeNet in training on synthetic images.

    Args:
        lr: learning rate.
    """

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = lr
        self.images, self.labels = synthetic(SHARD_ROWS)
        size = sum(prod(shape) for shape in _SHAPES)
        draw = torch.Generator().manual_seed(2)
        self.x = torch.randn(size, generator=draw).mul_(0.03)
        self.gradient = torch.zeros(size)
        self.parameters = [Parameter(value) for value in self._views(self.x)]
        for parameter, gradient in zip(self.parameters, self._views(self.gradient), strict=True):
            parameter.grad = gradient
        self.order = torch.randperm(SHARD_ROWS, generator=draw)
        self.position = 0

    @staticmethod
    def _views(flat: torch.Tensor) -> list[torch.Tensor]:
        pieces = flat.split([prod(shape) for shape in _SHAPES])  # type: ignore[no-untyped-call]
        return [
            piece.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)
            if len(shape) == 4
            else piece.view(shape)
            for piece, shape in zip(pieces, _SHAPES, strict=True)
        ]

    def run(self, steps: int) -> float:
        """Train for ``steps`` steps and return their mean loss."""
        w1, b1, s1, o1, w2, b2, s2, o2, w3, b3, s3, o3, w4, b4 = self.parameters
        x, gradient, lr = self.x, self.gradient, self.lr
        total = torch.zeros(())
        for _ in range(steps):
            if self.position + BATCH > SHARD_ROWS:
                self.order, self.position = torch.randperm(SHARD_ROWS), 0
            rows = self.order[self.position : self.position + BATCH]
            self.position += BATCH
            h = self.images[rows].float().mul_(2 / 255).sub_(1).permute(0, 3, 1, 2)
            h = max_pool2d(group_norm(conv2d(h, w1, b1, padding=2), 2, s1, o1), 2).relu_()
            h = max_pool2d(group_norm(conv2d(h, w2, b2, padding=2), 2, s2, o2), 2).relu_()
            h = max_pool2d(group_norm(conv2d(h, w3, b3, padding=2), 2, s3, o3), 2).relu_()
            loss = cross_entropy(linear(h.flatten(1), w4, b4), self.labels[rows])
            gradient.zero_()
            loss.backward()  # type: ignore[no-untyped-call]
            x.sub_(gradient, alpha=lr)
            total += loss.detach()
        return float(total) / steps


def steps_per_second(loop: HandTuned, seconds: float) -> tuple[float, float]:
    """Steps per second over at least ``seconds`` of wall-clock time, and CPU milliseconds per step."""
    start, cpu, steps = time.perf_counter(), time.process_time(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        loop.run(CHUNK_STEPS)
        steps += CHUNK_STEPS
    return steps / elapsed, 1e3 * (time.process_time() - cpu) / steps


def _worker(core: int, seconds: float) -> None:
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    loop = HandTuned()
    loop.run(CHUNK_STEPS)
    print("ready", flush=True)
    sys.stdin.readline()
    print(*steps_per_second(loop, seconds), flush=True)


def measure(seconds: float, processes: int) -> dict[str, object]:
    """Speeds of ``processes`` loops that run at the same time, dealt to this process's cores in turn."""
    cores = sorted(os.sched_getaffinity(0))
    workers = []
    for number in range(processes):
        command = [
            sys.executable,
            __file__,
            "--core",
            str(cores[number % len(cores)]),
            "--seconds",
            str(seconds),
        ]
        workers.append(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **MALLOC},
            )
        )
    for worker in workers:
        assert worker.stdout is not None
        if worker.stdout.readline() != "ready\n":
            raise SystemExit("a worker died before it was ready; its error is above")
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    measured = [tuple(map(float, worker.communicate()[0].split())) for worker in workers]
    speeds = [speed for speed, _ in measured]
    return {
        "steps_per_s": [round(speed, 1) for speed in speeds],
        "total_steps_per_s": round(sum(speeds), 1),
        "cpu_ms_per_step": round(sum(cpu for _, cpu in measured) / processes, 3),
    }


def main() -> None:
    """Parse the command line; print one JSON line."""
    parser = argparse.ArgumentParser(description="Steps per second of the hand-tuned GN-LeNet loop, b = 8.")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.core is not None:
        _worker(arguments.core, arguments.seconds)
    else:
        print(json.dumps(measure(arguments.seconds, arguments.processes)))


if __name__ == "__main__":
    main()
