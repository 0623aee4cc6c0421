package reach

import (
	"net"
	"slices"
	"strings"
)

// networkOf names the network that this machine is in by the networks of its interfaces.
// It changes when the machine moves to another Wi-Fi, a cable or a VPN.
func networkOf() string {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "" // all networks are one then
	}
	var all []string
	for _, a := range addresses {
		n, ok := a.(*net.IPNet)
		if ok && n.IP.IsGlobalUnicast() {
			all = append(all, (&net.IPNet{IP: n.IP.Mask(n.Mask), Mask: n.Mask}).String())
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}
