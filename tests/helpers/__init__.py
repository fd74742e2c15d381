"""What tests share: real servers, a fault proxy, worker processes, waiting, the key patterns."""
