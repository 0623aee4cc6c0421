package eventstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// DataKeys stores the keys of personal data. Unlike the log, its table can delete. The
// stores of this module implement it.
type DataKeys interface {
	// MakeDataKeys stores the keys of accounts, except accounts that have a key or were
	// erased.
	MakeDataKeys(ctx context.Context, keys map[int64][]byte) error
	// DataKeys gives the keys of accounts: nil for an erased account, and no entry for
	// an account that never had a key.
	DataKeys(ctx context.Context, accounts []int64) (map[int64][]byte, error)
	// EraseDataKey deletes the key of an account for ever.
	EraseDataKey(ctx context.Context, account int64) error
}

// PersonalStore is a store with keys, as [Personal] needs it.
type PersonalStore interface {
	Store
	Searcher
	DataKeys
}

// Personal is a layer above a store that encrypts personal data. Above it records are
// plain, below it they are encrypted. Fields that domain declares personal, and the
// address from which a command came, are encrypted with AES-256-GCM under a key of the
// record's account. They are bound to their place (event stream, event, schema, field).
// Leaf hashes are made of the stored bytes, so erasing a key changes no proof. A value
// whose key is erased reads as [domain.Erased].
//
// Records that were written without encryption are read as they are. Compare, export
// and prove with the store itself.
type Personal struct {
	PersonalStore
	// OnErase is called when the key of an account is gone, or when it is found to be:
	// what was made of records with the key is to be forgotten. nil = nothing was.
	OnErase func()

	mu    sync.Mutex
	cache map[int64]dataKey // guarded by mu
}

// dataKey is a key as of the time it was read; a nil cipher means that there is no key.
type dataKey struct {
	aead cipher.AEAD
	read time.Time
}

const (
	encryptedPrefix = "sealed:1:"
	// objectPrefix begins the text that stands for an encrypted object or list. When it is
	// erased, null stands there.
	objectPrefix = "sealed:3:"
	// sourcePrefix begins an encrypted address. The account follows under whose key it
	// is encrypted, because an append may have records of several accounts.
	sourcePrefix = "sealed:2:"
	// keyCacheSize and keyCacheTime bound the cache of keys. A key that another process
	// has erased is dropped here after keyCacheTime.
	keyCacheSize = 1 << 16
	keyCacheTime = 10 * time.Second
)

// NewPersonal makes the layer above a store.
func NewPersonal(store PersonalStore) *Personal {
	return &Personal{PersonalStore: store, cache: map[int64]dataKey{}}
}

// AppendBatch implements [Store].
func (p *Personal) AppendBatch(ctx context.Context, batch []Append) ([]Result, error) {
	encrypted := slices.Clone(batch)
	if err := p.load(ctx, accountsOf(batch), true); err != nil {
		return nil, err
	}
	for i := range encrypted {
		p.encryptAppend(&encrypted[i])
	}
	results, err := p.PersonalStore.AppendBatch(ctx, encrypted)
	if err != nil {
		return results, err
	}
	for i, r := range results {
		if r.Err != nil || r.Duplicate {
			continue
		}
		for j := range r.Records {
			r.Records[j].Data, r.Records[j].Meta.Source = batch[i].Events[j].Data, batch[i].Meta.Source
			if erases(&r.Records[j]) {
				// The event is written. If Erase fails here, it is done when the event
				// is read.
				err = errors.Join(err, p.Erase(ctx, r.Records[j].Owner))
			}
		}
	}
	if err != nil {
		// The append succeeded. The caller gets an error that makes it ask again.
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return results, nil
}

// accountsOf gives the accounts whose keys encrypt a batch.
func accountsOf(batch []Append) []int64 {
	var accounts []int64
	for i := range batch {
		a := &batch[i]
		if a.Meta.Source != "" {
			accounts = append(accounts, sourceAccount(a.Meta, a.Account))
		}
		for _, e := range a.Events {
			if len(domain.PersonalFields(e.Name)) > 0 {
				accounts = append(accounts, cmp.Or(e.Owner, a.Account))
			}
		}
	}
	return accounts
}

// sourceAccount gives the account to which the address of a command belongs: the user
// who sent the command, with a login, a key or a client, or the anonymous client that
// did, or else the owner of the record.
func sourceAccount(m domain.Metadata, owner int64) int64 {
	for _, who := range append([]string{m.Actor}, strings.Fields(m.Allowed)...) {
		if id, ok := strings.CutPrefix(who, "user:"); ok {
			if n, err := strconv.ParseInt(id, 10, 64); err == nil && n > 0 {
				return n
			}
		}
	}
	if id, ok := strings.CutPrefix(m.Actor, "client:"); ok {
		if n, err := strconv.ParseInt(id, 10, 64); err == nil && domain.IsAnonymous(n) {
			return n
		}
	}
	return owner
}

// load reads the keys of accounts into the cache. With draw, accounts without a key get
// one.
func (p *Personal) load(ctx context.Context, accounts []int64, draw bool) error {
	now := time.Now()
	p.mu.Lock()
	missing := slices.DeleteFunc(accounts, func(account int64) bool {
		k, ok := p.cache[account]
		return account == 0 || ok && now.Sub(k.read) < keyCacheTime && (k.aead != nil || !draw)
	})
	p.mu.Unlock()
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	missing = slices.Compact(missing)
	kept, err := p.PersonalStore.DataKeys(ctx, missing)
	if err != nil {
		return err
	}
	if fresh := draws(missing, kept); draw && len(fresh) > 0 {
		if err := p.MakeDataKeys(ctx, fresh); err != nil {
			return err
		}
		// Another process may have stored a key first.
		if kept, err = p.PersonalStore.DataKeys(ctx, missing); err != nil {
			return err
		}
	}
	for _, account := range missing {
		k := dataKey{read: now}
		if key := kept[account]; key != nil {
			if k.aead, err = newAEAD(key); err != nil {
				return fmt.Errorf("data key of account %d: %w", account, err)
			}
		}
		p.remember(account, k)
	}
	return nil
}

// remember puts a key into the cache, and tells when it is gone.
func (p *Personal) remember(account int64, k dataKey) {
	p.mu.Lock()
	was, known := p.cache[account]
	if len(p.cache) >= keyCacheSize {
		clear(p.cache)
	}
	p.cache[account] = k
	p.mu.Unlock()
	if k.aead == nil && (!known || was.aead != nil) && p.OnErase != nil {
		p.OnErase()
	}
}

// draws draws keys for the accounts that never had one.
func draws(accounts []int64, kept map[int64][]byte) map[int64][]byte {
	fresh := map[int64][]byte{}
	for _, account := range accounts {
		if _, ok := kept[account]; !ok {
			key := make([]byte, 32)
			_, _ = rand.Read(key) // never fails
			fresh[account] = key
		}
	}
	return fresh
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (p *Personal) key(account int64) cipher.AEAD {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cache[account].aead
}

// encryptAppend encrypts an append in place. It copies the caller's lists before it
// changes them.
func (p *Personal) encryptAppend(a *Append) {
	if a.Meta.Source != "" {
		account := sourceAccount(a.Meta, a.Account)
		if aead := p.key(account); account != 0 {
			if a.Meta.Source = encrypt(aead, a.Meta.Source, sourcePlace(account)); aead != nil {
				a.Meta.Source = sourcePrefix + strconv.FormatInt(account, 10) + ":" + strings.TrimPrefix(a.Meta.Source, encryptedPrefix)
			}
		}
	}
	events := slices.Clone(a.Events)
	for i, e := range events {
		fields := domain.PersonalFields(e.Name)
		account := cmp.Or(e.Owner, a.Account)
		if len(fields) == 0 || account == 0 || e.Stream < 0 || e.Stream >= len(a.Streams) {
			continue
		}
		aead, stream := p.key(account), a.Streams[e.Stream].Stream
		data, err := replaceFields(e.Data, fields, func(field string, plain []byte) ([]byte, error) {
			return encryptField(aead, plain, place(stream, e.Name, e.Schema, field))
		})
		if err != nil {
			continue // not an object; the store refuses it, or stores it as it is
		}
		events[i].Data = data
	}
	a.Events = events
}

// place is the text to which an encrypted value is bound: the value cannot be moved to
// another place.
func place(stream domain.StreamID, name string, schema int, field string) []byte {
	return []byte(string(stream) + "|" + name + "|" + strconv.Itoa(schema) + "|" + field)
}

func sourcePlace(account int64) []byte {
	return []byte("meta|source|" + strconv.FormatInt(account, 10))
}

func encrypt(aead cipher.AEAD, plain string, place []byte) string {
	switch {
	case plain == "":
		return ""
	case aead == nil:
		return domain.Erased // the account was erased: nothing new is stored about it
	}
	return encryptedPrefix + base64.RawURLEncoding.EncodeToString(aead.Seal(nil, nil, []byte(plain), place))
}

// encryptField encrypts a value of a record, which is JSON.
func encryptField(aead cipher.AEAD, value, place []byte) ([]byte, error) {
	switch value[0] {
	case '"':
		plain, err := stringOf(value)
		if err != nil {
			return nil, err
		}
		return quoted(encrypt(aead, plain, place))
	case '{', '[':
		if aead == nil {
			return []byte("null"), nil
		}
		return quoted(objectPrefix + base64.RawURLEncoding.EncodeToString(aead.Seal(nil, nil, value, place)))
	}
	return nil, nil // null
}

// decryptField reads what encryptField gave.
func decryptField(aead cipher.AEAD, value, place []byte) ([]byte, error) {
	if value[0] != '"' {
		return nil, nil
	}
	text, err := stringOf(value)
	if err != nil {
		return nil, err
	}
	object, ok := strings.CutPrefix(text, objectPrefix)
	if !ok {
		return quoted(decrypt(aead, text, place))
	}
	encrypted, err := base64.RawURLEncoding.DecodeString(object)
	if err != nil {
		return nil, nil //nolint:nilerr // it was not encrypted by this layer
	}
	if aead != nil {
		if plain, err := aead.Open(nil, nil, encrypted, place); err == nil {
			return plain, nil
		}
	}
	return []byte("null"), nil // its key is gone, or it was moved from its place
}

func decrypt(aead cipher.AEAD, value string, place []byte) string {
	text, ok := strings.CutPrefix(value, encryptedPrefix)
	if !ok {
		return value
	}
	encrypted, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return value // not encrypted by this layer
	}
	if aead == nil {
		return domain.Erased
	}
	plain, err := aead.Open(nil, nil, encrypted, place)
	if err != nil {
		return domain.Erased // its key is gone, or it was moved from its place
	}
	return string(plain)
}

// ReadStream implements [Store].
func (p *Personal) ReadStream(ctx context.Context, stream domain.StreamID, after domain.Version, limit int) ([]domain.Record, error) {
	records, err := p.PersonalStore.ReadStream(ctx, stream, after, limit)
	return records, errors.Join(err, p.open(ctx, records))
}

// ReadAll implements [Store].
func (p *Personal) ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error) {
	records, err := p.PersonalStore.ReadAll(ctx, after, limit)
	return records, errors.Join(err, p.open(ctx, records))
}

// Select implements [Searcher].
func (p *Personal) Select(ctx context.Context, q domain.Query, limit int) ([]domain.Record, error) {
	records, err := p.PersonalStore.Select(ctx, q, limit)
	return records, errors.Join(err, p.open(ctx, records))
}

// Routed is the log as the configuration feed carries it: encrypted, except for the
// fields without which forwarders lead no connection ([domain.RoutedFields]). The feed
// forgets those of an erased user (package broker).
func (p *Personal) Routed() Log { return routed{p} }

type routed struct{ *Personal }

// ReadAll implements [Log].
func (r routed) ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error) {
	records, err := r.PersonalStore.ReadAll(ctx, after, limit)
	return records, errors.Join(err, r.openFields(ctx, records, domain.RoutedFields))
}

// open decrypts records in place.
func (p *Personal) open(ctx context.Context, records []domain.Record) error {
	var accounts, ended []int64
	for i := range records {
		r := &records[i]
		if account, _, ok := encryptedSource(r); ok {
			accounts = append(accounts, account)
		}
		if erases(r) {
			ended = append(ended, r.Owner)
		}
	}
	p.finishErasures(ctx, ended)
	if err := p.load(ctx, accounts, false); err != nil {
		return err
	}
	for i := range records {
		r := &records[i]
		if account, value, ok := encryptedSource(r); ok {
			r.Meta.Source = decrypt(p.key(account), value, sourcePlace(account))
		}
	}
	return p.openFields(ctx, records, domain.PersonalFields)
}

// openFields decrypts those fields of records, in place.
func (p *Personal) openFields(ctx context.Context, records []domain.Record, of func(event string) []string) error {
	sealed := func(r *domain.Record) bool {
		return len(of(r.Name)) > 0 && (bytes.Contains(r.Data, []byte(encryptedPrefix)) || bytes.Contains(r.Data, []byte(objectPrefix)))
	}
	var accounts []int64
	for i := range records {
		if r := &records[i]; sealed(r) {
			accounts = append(accounts, r.Owner)
		}
	}
	if err := p.load(ctx, accounts, false); err != nil {
		return err
	}
	for i := range records {
		r := &records[i]
		if !sealed(r) {
			continue
		}
		aead := p.key(r.Owner)
		if data, err := replaceFields(r.Data, of(r.Name), func(field string, value []byte) ([]byte, error) {
			return decryptField(aead, value, place(r.Stream, r.Name, r.Schema, field))
		}); err == nil {
			r.Data = data
		}
	}
	return nil
}

// encryptedSource gives the account under whose key the address of a record is encrypted.
// Old records do not name the account; for them it is the owner of the record.
func encryptedSource(r *domain.Record) (account int64, value string, ok bool) {
	text, ok := strings.CutPrefix(r.Meta.Source, sourcePrefix)
	if !ok {
		return sourceAccount(r.Meta, r.Owner), r.Meta.Source, strings.HasPrefix(r.Meta.Source, encryptedPrefix)
	}
	number, encrypted, _ := strings.Cut(text, ":")
	account, err := strconv.ParseInt(number, 10, 64)
	return account, encryptedPrefix + encrypted, err == nil
}
