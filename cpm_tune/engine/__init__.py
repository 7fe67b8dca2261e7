"""Where tensors run: processes, devices, precision, sharding. Only this room knows which engine."""
