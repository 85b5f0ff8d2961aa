/* A real-time clock that is SKEW seconds ahead, for LD_PRELOAD; see clock.py. No header, no library: a bare
   compiler suffices. Waits until an absolute real time are not shifted; Python and libzmq have none. */

struct timespec { long s, ns; };
struct timeval { long s, us; };

extern void *dlsym(void *, const char *);

int clock_gettime(int clock, struct timespec *now)
{
    static int (*real)(int, struct timespec *);
    if (!real)
        real = (int (*)(int, struct timespec *)) dlsym((void *) -1 /* RTLD_NEXT */, "clock_gettime");
    int code = real(clock, now);
    if (code == 0 && (clock == 0 /* CLOCK_REALTIME */ || clock == 5 /* CLOCK_REALTIME_COARSE */))
        now->s += SKEW;
    return code;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec precise;
    int code = clock_gettime(0, &precise);
    now->s = precise.s;
    now->us = precise.ns / 1000;
    return code;
}

long time(long *now)
{
    struct timespec precise;
    clock_gettime(0, &precise);
    if (now)
        *now = precise.s;
    return precise.s;
}
