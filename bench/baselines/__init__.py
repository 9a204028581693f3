"""Baselines that rtk is compared with: plain loops and other frameworks."""
