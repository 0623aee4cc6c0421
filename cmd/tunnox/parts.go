package main

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tunnox-net/tunnox/domain"
)

// The options of a mapping are flags of every command that makes or changes one. The
// flags are made from the tags of the domain's struct, so a new option is a flag
// without further code.

// mappingOptions are the options from which the flags are made.
var mappingOptions = domain.Options{}

// protocolFlag adds the flag for the protocol to a command.
func protocolFlag(cmd *cobra.Command, into *string) {
	var names []string
	for _, p := range domain.Protocols() {
		names = append(names, string(p))
	}
	cmd.Flags().StringVar(into, "protocol", string(domain.ProtocolTCP), "the `protocol`: "+strings.Join(names, ", "))
	complete(cmd, "protocol", names)
}

// optionFlags adds the flags for a part of a mapping to a command. If a field is an
// object, each of its fields has a flag, whose name begins with the name of the object.
func optionFlags(cmd *cobra.Command, part any) { fieldFlags(cmd, "", domain.Fields(part)) }

func fieldFlags(cmd *cobra.Command, prefix string, fields []domain.Field) {
	flags := cmd.Flags()
	for _, field := range fields {
		name, help := prefix+flagName(field.Name), fieldHelp(field)
		switch kind := field.Type.Kind(); {
		case kind == reflect.String:
			flags.String(name, "", help)
			if field.Name == secretField {
				flags.String(name+"-file", "", "`file` with it: others on this machine can see what stands in a command")
			}
			if field.Enum != nil {
				complete(cmd, name, field.Enum)
			}
		case kind == reflect.Int, kind == reflect.Int64:
			flags.Int64(name, 0, help)
		case kind == reflect.Bool:
			flags.Bool(name, false, help)
		case kind == reflect.Slice && field.Type.Elem().Kind() == reflect.String:
			flags.StringSlice(name, nil, help)
		case isVisitors(field):
			visitorFlags(cmd, name, help)
		case kind == reflect.Map && field.Type.Elem().Kind() == reflect.String:
			flags.Var(pairsFlag{}, name, help+", `name=value`; may be given several times")
		case listOf(field.Type) != nil:
			flags.StringArray(name, nil, help+". Each `"+memberNames(listOf(field.Type))+"`; repeat the flag for each")
		case structOf(field.Type) != nil:
			fieldFlags(cmd, name+"-", domain.Fields(structOf(field.Type)))
		default:
			panic("no flag for " + field.Name + ", which is a " + field.Type.String())
		}
	}
}

// secretField is the name of texts that may stand in a file instead.
const secretField = "client_secret"

func fieldHelp(field domain.Field) string {
	help := field.Doc
	if field.Enum != nil {
		help += ": " + strings.Join(field.Enum, ", ")
	}
	if field.Unset != "" {
		help += fmt.Sprintf(" (default: %s)", field.Unset)
	}
	return help
}

func flagName(field string) string { return strings.ReplaceAll(field, "_", "-") }

// structOf gives an empty struct of a type that is a struct or points to one, or nil.
func structOf(t reflect.Type) any {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	return reflect.Zero(t).Interface()
}

// listOf gives an empty struct of a type that is a list of structs, or nil.
func listOf(t reflect.Type) any {
	if t.Kind() != reflect.Slice {
		return nil
	}
	return structOf(t.Elem())
}

// memberNames shows how a member of a list of structs is written.
func memberNames(of any) string {
	var names []string
	for _, field := range domain.Fields(of) {
		names = append(names, field.Name+"=...")
	}
	return strings.Join(names, ",")
}

// members reads the members of a list of structs, NAME=VALUE with commas between.
func members(flag string, of any, texts []string) ([]map[string]any, error) {
	all := []map[string]any{}
	for _, text := range texts {
		member := map[string]any{}
		for pair := range strings.SplitSeq(text, ",") {
			name, value, ok := strings.Cut(pair, "=")
			if text == "" {
				break // none: the list is emptied
			}
			i := slices.IndexFunc(domain.Fields(of), func(f domain.Field) bool { return f.Name == name })
			if !ok || i < 0 {
				return nil, usageError("--%s %q: want %s", flag, text, memberNames(of))
			}
			if kind := domain.Fields(of)[i].Type.Kind(); kind == reflect.Int || kind == reflect.Int64 {
				n, err := strconv.ParseInt(value, 10, 64)
				if err != nil {
					return nil, usageError("--%s %q: %s is a whole number", flag, text, name)
				}
				member[name] = n
				continue
			}
			member[name] = value
		}
		if len(member) > 0 {
			all = append(all, member)
		}
	}
	return all, nil
}

// complete makes a shell offer the values of a flag.
func complete(cmd *cobra.Command, flag string, values []string) {
	// This fails only for a missing flag, and the caller has just made the flag.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// addOptions adds the given fields of a part to a body.
func addOptions(flags *pflag.FlagSet, part any, body map[string]any) error {
	return addFields(flags, "", domain.Fields(part), body)
}

func addFields(flags *pflag.FlagSet, prefix string, fields []domain.Field, body map[string]any) error {
	for _, field := range fields {
		name := prefix + flagName(field.Name)
		if of := structOf(field.Type); of != nil {
			inner := map[string]any{}
			if err := addFields(flags, name+"-", domain.Fields(of), inner); err != nil {
				return err
			}
			if len(inner) > 0 {
				body[field.Name] = inner
			}
			continue
		}
		if field.Name == secretField && flags.Changed(name+"-file") {
			file, err := flags.GetString(name + "-file")
			if err != nil {
				return err
			}
			text, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("--%s-file: %w", name, err)
			}
			body[field.Name] = strings.TrimSpace(string(text))
			continue
		}
		if !flags.Changed(name) && !(isVisitors(field) && flags.Changed(name+"-file")) {
			continue
		}
		if of := listOf(field.Type); of != nil && !isVisitors(field) {
			texts, err := flags.GetStringArray(name)
			if err != nil {
				return err
			}
			if body[field.Name], err = members(name, of, texts); err != nil {
				return err
			}
			continue
		}
		value, err := flagValue(flags, name)
		if err != nil {
			return err
		}
		body[field.Name] = value
	}
	return nil
}

func flagValue(flags *pflag.FlagSet, name string) (any, error) {
	switch value := flags.Lookup(name).Value.(type) {
	case *visitorsFlag:
		return value.into.all()
	case pairsFlag:
		return value, nil
	}
	switch flags.Lookup(name).Value.Type() {
	case "int64":
		return flags.GetInt64(name)
	case "bool":
		return flags.GetBool(name)
	case "stringSlice":
		return flags.GetStringSlice(name)
	}
	return flags.GetString(name)
}

// optionNames gives the names of the flags that optionFlags adds.
func optionNames(part any) []string {
	cmd := &cobra.Command{}
	optionFlags(cmd, part)
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}
