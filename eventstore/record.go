package eventstore

import (
	"encoding/json"
	"fmt"

	"github.com/tunnox-net/tunnox/domain"
)

// DecodeMeta reads the metadata of a record as a store keeps it.
func DecodeMeta(position domain.Position, meta []byte) (domain.Metadata, error) {
	var m domain.Metadata
	if err := json.Unmarshal(meta, &m); err != nil {
		return m, fmt.Errorf("metadata of record %d: %w", position, err)
	}
	return m, nil
}

// CheckDense returns an error unless the records follow after without a hole.
// A hole means that the log was damaged: skipping it would make every read
// model wrong for ever, so readers stop.
func CheckDense(after domain.Position, records []domain.Record) error {
	for _, r := range records {
		after++
		if r.Position != after {
			return fmt.Errorf("eventstore: the log has a hole: record %d is missing, found %d", after, r.Position)
		}
	}
	return nil
}
