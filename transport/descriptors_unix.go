//go:build unix

package transport

import "syscall"

// descriptors is how many this process may have, of which each connection takes
// one; 0: nobody knows.
func descriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(uint64(limit.Cur), 1<<30)) // an int64 on some systems
}
