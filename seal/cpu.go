package seal

import "golang.org/x/sys/cpu"

// hardwareAES tells whether this processor computes AES-GCM with instructions of its own.
// Without them ChaCha20-Poly1305 is faster, and takes the same time for all keys.
var hardwareAES = cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ && cpu.X86.HasSSE41 && cpu.X86.HasSSSE3 ||
	cpu.ARM64.HasAES && cpu.ARM64.HasPMULL ||
	cpu.S390X.HasAES && cpu.S390X.HasAESCTR && cpu.S390X.HasGHASH
