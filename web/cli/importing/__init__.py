"""`blotter import`: chat files read (files), sent as a streaming writer would (replay), and compared (verify)."""
