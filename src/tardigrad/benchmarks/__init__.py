"""Speed, measured beside a control in the same run: `tardigrad bench NAME`."""
