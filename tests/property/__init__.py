"""What holds for any content and at any step."""
