package crypt

// flight is an access that was started and is under way.
type flight struct {
	v      *Volume
	p      []byte // of a read
	off    int64
	b      *buffer // of a write
	done   func(ok bool)
	landed func(ok bool) // made once, so that an access allocates nothing
	aside  func()        // clear, likewise
}

func newFlight() any {
	f := &flight{}
	f.landed = f.land
	f.aside = f.clear
	return f
}

// StartReadAt begins a read, and decrypts at its end.
func (v *Volume) StartReadAt(p []byte, off int64, done func(ok bool)) bool {
	if v.startRead == nil || v.whole(off, int64(len(p))) != nil {
		return false
	}
	f := v.flights.Get().(*flight)
	f.v, f.p, f.off, f.done = v, p, off, done
	if v.startRead(p, off, f.landed) {
		return true
	}
	f.free()
	return false
}

// StartWriteAt begins to write a copy of p, encrypted.
func (v *Volume) StartWriteAt(p []byte, off int64, done func(ok bool)) bool {
	if v.startWrite == nil || len(p) > promptMost || v.whole(off, int64(len(p))) != nil {
		return false
	}
	f := v.flights.Get().(*flight)
	f.v, f.b, f.done = v, buffers.get(len(p)), done
	v.x.encrypt(f.b.p, p, off)
	if v.startWrite(f.b.p, off, f.landed) {
		return true
	}
	f.free()
	return false
}

func (f *flight) land(ok bool) {
	switch {
	case !ok || f.b != nil:
		f.end(ok)
	case len(f.p) < asideLeast:
		f.clear()
	default:
		go f.aside()
	}
}

func (f *flight) clear() {
	f.v.x.decrypt(f.p, f.off)
	f.end(true)
}

func (f *flight) end(ok bool) {
	done := f.done
	f.free()
	done(ok)
}

func (f *flight) free() {
	if f.b != nil {
		buffers.put(f.b)
	}
	v := f.v
	f.v, f.p, f.b, f.done = nil, nil, nil, nil
	v.flights.Put(f)
}
