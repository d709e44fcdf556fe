"""What the machine is: environment, devices, control groups."""
