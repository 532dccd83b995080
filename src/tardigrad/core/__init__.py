"""Tasks, rules, the event loop, traces and results: what everything else stands on."""
