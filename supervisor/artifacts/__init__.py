"""What one phase hands to the next: stored by digest, signed, verified."""
