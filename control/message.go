package control

import (
	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
)

// lean leaves out of a view what a forwarder has no use for: names, addresses
// and password hashes of users. They neither travel nor stay in its memory.
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

// viewMessage is the only way of a view to a forwarder.
func viewMessage(v domain.ClientView) (*controlpb.View, error) {
	form, data, err := domain.EncodeExchanged(lean(v))
	return &controlpb.View{Form: int32(form), View: data}, err
}

func viewOf(m *controlpb.View) (domain.ClientView, error) {
	return domain.DecodeExchanged[domain.ClientView](int(m.GetForm()), m.GetView())
}
