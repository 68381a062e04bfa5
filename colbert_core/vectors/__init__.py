"""Token vectors: MaxSim, packing, pooling, compression and inverted lists."""
