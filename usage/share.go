package usage

// Claim is what one forwarder has of an account's bandwidth.
type Claim struct {
	Demand int64
	Share  float64
}

// reserve is the part of what is free that nobody gets, so that a forwarder that
// comes finds something until the others have been told to use less.
const reserve = 1.0 / 32

// Shared gives a forwarder its part, in proportion to its demand among all. It
// never gives what others still have, so that the parts together are less than
// the whole at every moment; what others have too much they give back with their
// next report.
func Shared(demand int64, others []Claim) float64 {
	if demand <= 0 {
		return 0
	}
	all, taken := float64(demand), 0.0
	for _, o := range others {
		all += float64(o.Demand)
		taken += o.Share
	}
	free := max(0, 1-taken) * (1 - reserve)
	return min(float64(demand)/all, free)
}
