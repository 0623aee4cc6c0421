package domain

import (
	"testing"
	"time"
)

// TestAnErasedUsersHostIsFree: the host of a user who is erased can be had by others an
// hour after it was freed, whichever of its events say the name and which do not.
func TestAnErasedUsersHostIsFree(t *testing.T) {
	freed := time.Unix(1000, 0).UTC()
	taken := func(host, path string, mapping int64) Event {
		return HostTaken{Host: host, Path: path, MappingID: mapping, UserID: FirstUserID}
	}
	free := func(host, path string) Event { return HostFreed{Host: host, Path: path} }
	for name, events := range map[string][]Event{
		"all erased":            {taken(Erased, Erased, 1), taken(Erased, Erased, 2), free(Erased, Erased), free(Erased, Erased)},
		"taken before the seal": {taken("zoe", "/a", 1), taken(Erased, Erased, 2), taken("zoe", "/b", 3), free(Erased, Erased), free(Erased, Erased), free(Erased, Erased)},
		"a host of her own":     {HostProved{Host: "zoe", UserID: FirstUserID}, taken(Erased, Erased, 1), free(Erased, Erased), HostReleased{Host: Erased}},
	} {
		var h Host
		for _, e := range events {
			h.Apply(e, freed)
		}
		for name, use := range h.Names {
			if len(use.Paths) > 0 || use.Owner != 0 {
				t.Errorf("%s: %q is still %+v", name, name, use)
			}
		}
		if h.freeFor(FirstUserID+1, "zoe", freed.Add(HostKept-time.Second)) {
			t.Errorf("%s: another user has the host at once", name)
		}
		if !h.freeFor(FirstUserID+1, "zoe", freed.Add(HostKept)) {
			t.Errorf("%s: nobody ever gets the host", name)
		}
	}
}

// TestAnErasedMappingCarriesNothing: who may come in is erased with the rest, so that a
// mapping that a log without keys has left would be open to everybody.
func TestAnErasedMappingCarriesNothing(t *testing.T) {
	for name, m := range map[string]Mapping{
		"socks5":  {ID: 1, Protocol: ProtocolSOCKS5, Origin: Origin{LocalHost: Erased, LocalPort: 1080}},
		"port":    {ID: 1, Protocol: ProtocolTCP, Origin: Origin{PublicPort: PortRange{First: 20000, Last: 20000}}, Service: Service{TargetHost: Erased, TargetPort: 80}},
		"host":    {ID: 1, Protocol: ProtocolHTTP, Origin: Origin{PublicHost: Erased, PublicPath: Erased}, Service: Service{Target: Erased}},
		"of unix": {ID: 1, Protocol: ProtocolTCP, Origin: Origin{PublicPort: PortRange{First: 20000, Last: 20000}}, Service: Service{Target: Erased}},
	} {
		if m.Active() {
			t.Errorf("%s: it is active", name)
		}
	}
}
