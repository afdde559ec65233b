"""KV caches of few bits, stored packed, and policies that say how many bits a token gets."""
