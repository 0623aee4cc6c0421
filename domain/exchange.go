package domain

import (
	"encoding/json"
	"fmt"
)

// exchangeForm is the number of the form in which control planes and forwarders
// exchange states, commands and results. The number rises when a member gets another
// meaning. A new member needs no new number: a receiver that does not know the member
// refuses the whole message.
const exchangeForm = 1

// Exchanged is what control planes and forwarders exchange as JSON.
type Exchanged interface {
	ClientView | IngressView | ClientCommand | ClientResult
}

// EncodeExchanged gives the number of the form and the JSON.
func EncodeExchanged[T Exchanged](v T) (form int, data []byte, err error) {
	data, err = json.Marshal(v)
	return exchangeForm, data, err
}

// DecodeExchanged reads what EncodeExchanged wrote. Another form and unknown
// members are errors of code [CodeOtherVersion]: half a view would let through
// what the other half forbids.
func DecodeExchanged[T Exchanged](form int, data []byte) (v T, err error) {
	if form != exchangeForm {
		return v, otherVersion(fmt.Errorf("its form is %d, and this version reads %d", form, exchangeForm))
	}
	if err := decodeObject(data, &v); err != nil {
		var none T
		return none, otherVersion(err)
	}
	return v, nil
}

func otherVersion(cause error) error {
	return fmt.Errorf("%w: %w", &Error{Code: CodeOtherVersion,
		Message: "A control plane and a forwarder of this cluster are of different versions: bring all its servers to the same version."}, cause)
}
