package usage

// Allocation is the part of an account's bandwidth that one forwarder holds. Demand is
// in millionths of the limit, Fraction is 0 to 1.
type Allocation struct {
	Demand   int64
	Fraction float64
}

// reserve is the part of the free bandwidth that is given to nobody. A forwarder that
// is new to the account finds it until the others have been told to use less.
const reserve = 1.0 / 32

// FractionOf gives the fraction of an account's bandwidth for one forwarder, in
// proportion to its demand among all demands. It never gives what others still hold,
// so the sum is below the whole at every moment. Forwarders that hold too much give
// it back with their next report.
func FractionOf(demand int64, others []Allocation) float64 {
	if demand <= 0 {
		return 0
	}
	all, taken := float64(demand), 0.0
	for _, o := range others {
		all += float64(o.Demand)
		taken += o.Fraction
	}
	free := max(0, 1-taken) * (1 - reserve)
	return min(float64(demand)/all, free)
}
