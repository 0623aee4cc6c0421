package httpapi

// RuleFor tells the tests what an operation asks for.
func RuleFor(operation string) (found, open bool, scope, kind string, admins bool) {
	r, found := rules[operation]
	return found, r.open, string(r.scope), r.kind, r.own == nil && !r.open
}

// Rules lists the operations that have a rule.
func Rules() (operations []string) {
	for id := range rules {
		operations = append(operations, id)
	}
	return operations
}
