"""What differs between architectures, one small file each."""
