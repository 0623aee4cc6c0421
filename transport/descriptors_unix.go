//go:build unix

package transport

import "syscall"

// descriptors gives how many descriptors this process may have; 0 = not known. Each
// connection needs one.
func descriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(uint64(limit.Cur), 1<<30)) // an int64 on some systems
}
