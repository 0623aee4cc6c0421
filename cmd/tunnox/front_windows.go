package main

import "os"

// atFront tells whether this program is the one that the terminal belongs to: there are no
// others.
func atFront(*os.File) bool { return true }
