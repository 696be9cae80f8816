package hub

// measures are how much is done, or held, at once. They are the same for every hub; tests make them small.
type measures struct {
	// The ring holds the newest frames, about so many and so many bytes of them: more only while a shard, or a client
	// that could be written to, has not read them.
	ringFrames uint64
	ringBytes  int
	// logs is up to how many logs a replay merges; beyond that it goes through all that is kept.
	logs int
	// A turn of a late client has no more frames and bytes, and looks at no more frames for those that are the
	// client's: then others have their turns.
	turnFrames, turnBytes, turnLooks int
	// batch is how many frames a shard reads at once.
	batch int
	// topUp is after how many clients' turns a shard looks for what has been published meanwhile.
	topUp int
}

var usual = measures{
	ringFrames: 8192, ringBytes: 4 << 20, logs: 32,
	turnFrames: 256, turnBytes: 64 << 10, turnLooks: 1024, batch: 256, topUp: 16,
}
