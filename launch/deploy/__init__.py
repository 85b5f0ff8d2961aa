"""Brings code, environment and data sets to hosts that lack them."""

from __future__ import annotations

from launch.deploy.data import send_data
from launch.deploy.deployment import Deployment
from launch.deploy.line import Route
from launch.deploy.plan import Place

__all__ = ["Deployment", "Place", "Route", "send_data"]
