package domain

import (
	"fmt"
	"slices"
)

// The refusals of taking an event back.
const (
	CodeNotRevertible Code = "not_revertible" // an event of this kind cannot be taken back
	CodeMovedOn       Code = "moved_on"       // a later event changed the same thing
)

// Compensation gives the command that reverts an event. The event stays in the log; the
// command asks for the state before it. before is the state on which the event was
// decided, now is the present state, and held is what the event's account holds now. If
// the subject has changed since, or has ended, the result is a refusal with the reason.
func Compensation(event Event, before, now Aggregate, held *Quota) (Command, error) {
	switch event.(type) {
	case UserDeleted, ClientDeleted, MappingDeleted, ClientClaimed, WebhookDeleted, ClientDisconnectRequested, NodeDrainRequested:
		return nil, final(event)
	}
	switch was := before.(type) {
	case *User:
		u, ok := now.(*User)
		if !ok || !u.Live() {
			return nil, movedOn("The user has been deleted since.")
		}
		return compensateUser(event, was, u, held)
	case *Client:
		c, ok := now.(*Client)
		if !ok || !c.Live() {
			return nil, movedOn("The client has been deleted since.")
		}
		return compensateClient(event, was, c, held)
	case *Mapping:
		m, ok := now.(*Mapping)
		if !ok || !m.Live() {
			return nil, movedOn("The mapping has been deleted since.")
		}
		return compensateMapping(event, was, m)
	case *Webhook:
		w, ok := now.(*Webhook)
		if !ok || !w.Live() {
			return nil, movedOn("The webhook has been deleted since.")
		}
		return compensateWebhook(event, was, w)
	case *Quota:
		if q, ok := now.(*Quota); ok {
			return compensateQuota(event, was, q)
		}
	}
	return nil, final(event)
}

func movedOn(message string) error { return refuse(CodeMovedOn, message) }

// final is the refusal for an event that cannot be reverted, with the reason if it is
// known.
func final(event Event) error {
	switch event.(type) {
	case UserDeleted, ClientDeleted, MappingDeleted, ClientClaimed, WebhookDeleted:
		return refuse(CodeNotRevertible, "An end is final, and the id is never used again. Create another one.")
	case UserPasswordSet, ClientCredentialRotated, WebhookSecretRotated:
		return refuse(CodeNotRevertible, "The earlier secret may be the one that had to be replaced. Set a new one.")
	case ClientKeyAnnounced:
		return refuse(CodeNotRevertible, "Only the client's agent has the secret half of a key. It announces another one with tunnox agent key --rotate.")
	case ClientDisconnectRequested:
		return refuse(CodeNotRevertible, "A session that has ended cannot be continued. The agent of the client connects again by itself.")
	case NodeCertified, NodeRevoked:
		return refuse(CodeNotRevertible, "What was certified ends with its certificate, and a node that was revoked is not trusted again. Let it join under another id.")
	case NodeDrainRequested:
		return refuse(CodeNotRevertible, "A node that drains accepts no agents until it is restarted. Restart it.")
	case QuotaTaken, QuotaReturned, QuotaMoved, PortTaken, PortFreed, HostTaken, HostFreed:
		return refuse(CodeNotRevertible, "This is the account's side of another event of the same request. Revert that one.")
	}
	return refuse(CodeNotRevertible, fmt.Sprintf("An event %s cannot be taken back.", event.EventName()))
}

func compensateUser(event Event, was, now *User, held *Quota) (Command, error) {
	const changed = "The user has been changed again since."
	switch e := event.(type) {
	case UserCreated:
		if held != nil && len(held.Clients)+len(held.Mappings) > 0 {
			return nil, movedOn("The user has clients or mappings by now, which would end with it. Delete the user if that is meant.")
		}
		return DeleteUser{ID: now.ID}, nil
	case UserChanged:
		if now.Username != e.Username || now.Email != e.Email {
			return nil, movedOn(changed)
		}
		return ChangeUser{ID: now.ID, Username: &was.Username, Email: &was.Email}, nil
	case UserRoleSet:
		if now.Role != e.Role {
			return nil, movedOn(changed)
		}
		return SetUserRole{ID: now.ID, Role: was.Role}, nil
	case UserDisabled:
		return switched(SetUserEnabled{ID: now.ID, Enabled: true}, now.Disabled, "The user has been enabled since.")
	case UserEnabled:
		return switched(SetUserEnabled{ID: now.ID}, !now.Disabled, "The user has been disabled since.")
	}
	return nil, final(event)
}

func switched(c Command, stands bool, otherwise string) (Command, error) {
	if !stands {
		return nil, movedOn(otherwise)
	}
	return c, nil
}

func compensateClient(event Event, was, now *Client, held *Quota) (Command, error) {
	switch e := event.(type) {
	case ClientCreated:
		if held != nil && len(held.mappingsOf(now.ID)) > 0 {
			return nil, movedOn("The client has mappings by now, which would end with it. Delete the client if that is meant.")
		}
		return DeleteClient{ID: now.ID}, nil
	case ClientChanged:
		if now.Name != e.Name || now.Description != e.Description {
			return nil, movedOn("The client has been changed again since.")
		}
		return ChangeClient{ID: now.ID, Name: &was.Name, Description: &was.Description}, nil
	case ClientCommandsSet:
		if now.Commands != e.Commands {
			return nil, movedOn("Whose agents may lead connections to the client has been set again since.")
		}
		return ChangeClient{ID: now.ID, Commands: &was.Commands}, nil
	case ClientDisabled:
		return switched(SetClientEnabled{ID: now.ID, Enabled: true}, now.Disabled, "The client has been enabled since.")
	case ClientEnabled:
		return switched(SetClientEnabled{ID: now.ID}, !now.Disabled, "The client has been disabled since.")
	}
	return nil, final(event)
}

func compensateMapping(event Event, was, now *Mapping) (Command, error) {
	switch e := event.(type) {
	case MappingCreated:
		return DeleteMapping{ID: now.ID}, nil
	case MappingChanged:
		if !now.Parts().equal(e.Parts) {
			return nil, movedOn("The mapping has been changed again since.")
		}
		return ChangeMapping{ID: now.ID, Patch: PatchOf(was.Parts())}, nil
	case MappingDisabled:
		return switched(SetMappingEnabled{ID: now.ID, Enabled: true}, now.Disabled, "The mapping has been enabled since.")
	case MappingEnabled:
		return switched(SetMappingEnabled{ID: now.ID}, !now.Disabled, "The mapping has been disabled since.")
	}
	return nil, final(event)
}

func compensateWebhook(event Event, was, now *Webhook) (Command, error) {
	switch e := event.(type) {
	case WebhookCreated:
		return DeleteWebhook{ID: now.ID}, nil
	case WebhookChanged:
		if now.URL != e.URL || !slices.Equal(now.Events, e.Events) || now.All != e.All || now.Description != e.Description {
			return nil, movedOn("The webhook has been changed again since.")
		}
		return ChangeWebhook{ID: now.ID, URL: &was.URL, Events: &was.Events, All: &was.All, Description: &was.Description, Admin: true}, nil
	case WebhookDisabled:
		return switched(SetWebhookEnabled{ID: now.ID, Enabled: true}, now.Disabled, "The webhook has been enabled since.")
	case WebhookEnabled:
		return switched(SetWebhookEnabled{ID: now.ID}, !now.Disabled, "The webhook has been disabled since.")
	}
	return nil, final(event)
}

func compensateQuota(event Event, was, now *Quota) (Command, error) {
	e, ok := event.(QuotaSet)
	switch {
	case !ok:
		return nil, final(event)
	case !was.Exists():
		return nil, refuse(CodeNotRevertible, "These limits came with the account. Revert the event that made it.")
	case !now.Limits.Equal(e.Limits):
		return nil, movedOn("The limits have been set again since.")
	}
	return SetQuota{ID: now.Account, Limits: was.Limits}, nil
}
