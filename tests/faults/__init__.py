"""What a crash, a full disk or a crowd leaves behind."""
