"""Deltas: what is trained on a frozen backbone. The only folder that touches OpenDelta."""
