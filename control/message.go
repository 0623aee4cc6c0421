package control

import (
	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
)

// lean removes from a view what a forwarder does not use: names, addresses and password
// hashes of users. They are neither sent nor kept in its memory.
func lean(v domain.ClientView) domain.ClientView {
	v.Users = leanUsers(v.Users)
	return v
}

func leanIngress(v domain.IngressView) domain.IngressView {
	v.Users = leanUsers(v.Users)
	return v
}

func leanUsers(users []domain.Versioned[domain.User]) (lean []domain.Versioned[domain.User]) {
	for _, u := range users {
		lean = append(lean, domain.Versioned[domain.User]{Version: u.Version, State: domain.User{ID: u.State.ID,
			Disabled: u.State.Disabled, Deleted: u.State.Deleted, CreatedAt: u.State.CreatedAt, UpdatedAt: u.State.UpdatedAt}})
	}
	return lean
}

// viewMessage makes the message of a view. Every view to a forwarder goes through it.
func viewMessage(v domain.ClientView) (*controlpb.View, error) {
	form, data, err := domain.EncodeExchanged(lean(v))
	return &controlpb.View{Form: int32(form), View: data}, err
}

func viewOf(m *controlpb.View) (domain.ClientView, error) {
	return domain.DecodeExchanged[domain.ClientView](int(m.GetForm()), m.GetView())
}
