"""What backends with a process of their own share: the command to run, the keeper client, tailing, framing."""
