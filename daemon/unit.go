package daemon

import (
	"fmt"
	"strings"
)

// hardening takes from a program what it does not need; the units in deploy/systemd have
// the same lines, which a test holds.
var hardening = []string{
	"NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes", "PrivateDevices=yes", "ProtectKernelTunables=yes", "ProtectKernelModules=yes",
	"ProtectKernelLogs=yes", "ProtectControlGroups=yes", "ProtectClock=yes", "ProtectHostname=yes", "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
	"RestrictNamespaces=yes", "RestrictRealtime=yes", "RestrictSUIDSGID=yes", "LockPersonality=yes", "MemoryDenyWriteExecute=yes",
	"SystemCallArchitectures=native", "SystemCallFilter=@system-service", "SystemCallErrorNumber=EPERM", "CapabilityBoundingSet=", "UMask=0077",
}

// Unit writes the unit of a service for systemd. lines are those of [Service] beside the
// usual ones: account, directories, limits. A manager of one user cannot take rights away
// but for new ones.
func Unit(s Service, ofUser bool, lines ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[Unit]\nDescription=%s\nDocumentation=https://github.com/tunnox-net/tunnox\n", specifiers.Replace(s.Description))
	if !ofUser {
		b.WriteString("After=network-online.target\nWants=network-online.target\n")
	}
	b.WriteString("\n[Service]\nType=exec\nExecStart=" + word(s.Program))
	for _, argument := range s.Arguments {
		b.WriteString(" " + word(argument))
	}
	b.WriteString("\nRestart=always\nRestartSec=1\n")
	if s.Account != "" && !ofUser {
		b.WriteString("User=" + s.Account + "\n")
	}
	target := "multi-user.target"
	if ofUser {
		target = "default.target"
		b.WriteString("NoNewPrivileges=yes\nUMask=0077\n")
	} else {
		b.WriteString(strings.Join(hardening, "\n") + "\n")
	}
	for _, line := range lines { // behind the others, so that they can give back what those take
		b.WriteString(line + "\n")
	}
	b.WriteString("\n[Install]\nWantedBy=" + target + "\n")
	return b.String()
}

// specifiers escapes what systemd would replace.
var specifiers = strings.NewReplacer("%", "%%", "\n", " ")

// word quotes one argument of ExecStart, as systemd.service(5) and systemd.syntax(7) say.
func word(text string) string {
	text = strings.NewReplacer("%", "%%", "$", "$$", `\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(text)
	if text == "" || strings.ContainsAny(text, " \\'\";") {
		return `"` + text + `"`
	}
	return text
}

// Path writes a path as the value of a setting for directories.
func Path(path string) string {
	return `"` + strings.NewReplacer("%", "%%", `\`, `\\`, `"`, `\"`).Replace(path) + `"`
}
