"""What keeps a coordinator or a hospital running: its status, its numbers, its unit of systemd."""
