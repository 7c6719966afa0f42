"""The public testing kit: clocks, signals, sample and scripted agents, a scripted model server."""
