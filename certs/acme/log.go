package acme

import (
	"context"
	"log/slog"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapOver gives certmagic a logger that writes to ours. What certmagic tells is for
// debugging: an order that fails is reported by [Keeper], and certmagic says it several
// times.
func zapOver(log *slog.Logger) *zap.Logger { return zap.New(&core{log: log}) }

// core is a zapcore.Core over slog.
type core struct{ log *slog.Logger }

// Enabled implements [zapcore.Core].
func (c *core) Enabled(zapcore.Level) bool {
	return c.log.Enabled(context.Background(), slog.LevelDebug)
}

// With implements [zapcore.Core].
func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{log: c.log.With(attributes(fields)...)}
}

// Check implements [zapcore.Core].
func (c *core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write implements [zapcore.Core].
func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.log.Debug("certmagic: "+e.Message, attributes(fields)...)
	return nil
}

// Sync implements [zapcore.Core].
func (c *core) Sync() error { return nil }

// attributes gives the fields that are plain values. Others may be whole objects, with
// keys in them.
func attributes(fields []zapcore.Field) (list []any) {
	plain := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		switch f.Type {
		case zapcore.ReflectType, zapcore.ObjectMarshalerType, zapcore.InlineMarshalerType, zapcore.StringerType, zapcore.NamespaceType:
			continue
		}
		f.AddTo(plain)
	}
	for name, value := range plain.Fields {
		if d, ok := value.(time.Duration); ok {
			value = d.Round(time.Second)
		}
		list = append(list, name, value)
	}
	return list
}
