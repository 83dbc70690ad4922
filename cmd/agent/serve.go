package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"sluis/internal/agent"
	"sluis/internal/config"
	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/receipt"
	"sluis/internal/source"
)

func (a *app) serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Answer what others may ask, until it is stopped",
		Long: "Keeps the organisation's key statement published and answers the broker's questions from the configured sources. It opens the\n" +
			"connection itself, so no port need be open, and opens it again whenever it breaks. As a witness it checks\n" +
			"that the ledger only grows, and stops, with status 5, when it does not. SIGINT or SIGTERM lets running answers finish.",
		Example: "  agent serve -c police/agent.yaml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			s, err := a.connect()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			return s.serve(c.Context())
		},
	}
}

func (s *session) serve(ctx context.Context) (err error) {
	connectors := map[disclosure.Domain]agent.Connector{}
	var opened []io.Closer
	defer func() {
		for _, o := range opened {
			err = errors.Join(err, o.Close())
		}
	}()
	for _, configured := range s.cfg.Sources {
		c, err := source.Open(ctx, sourceConfig(configured))
		if err != nil {
			return err
		}
		opened = append(opened, c)
		connectors[disclosure.Domain(configured.Domain)] = connector{c}
	}
	seen, err := agent.OpenSeenPermits(s.cfg.State, time.Now)
	if err != nil {
		return err
	}
	opened = append(opened, seen)
	answering := agent.NewSource(s.agent, agent.SourceConfig{Connectors: connectors, Rules: houseRules(s.cfg), Seen: seen})
	s.log.InfoContext(ctx, "agent started", slog.String("oin", s.cfg.OIN), slog.Int("sources", len(connectors)), slog.String("version", version))
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.agent.KeepStatement(ctx) })
	group.Go(func() error { return s.agent.KeepWatch(ctx) })
	// An agent without sources has nothing to answer, but still publishes its keys, so that it can be answered.
	if len(connectors) > 0 {
		group.Go(func() error { return s.Serve(ctx, served(s.cfg), version, answering.Answer) })
	}
	err = group.Wait()
	s.log.InfoContext(context.WithoutCancel(ctx), "agent stopped")
	return err
}

// served are the hats that have a source.
func served(cfg *config.Agent) []disclosure.Domain {
	hats := make([]disclosure.Domain, len(cfg.Sources))
	for i, s := range cfg.Sources {
		hats[i] = disclosure.Domain(s.Domain)
	}
	return hats
}

func houseRules(cfg *config.Agent) []agent.HouseRule {
	rules := make([]agent.HouseRule, len(cfg.HouseRules))
	for i, r := range cfg.HouseRules {
		rules[i] = agent.HouseRule{
			Purposes: convert[disclosure.Purpose](r.Purposes), RequesterDomains: convert[disclosure.Domain](r.RequesterDomains),
			Categories: convert[disclosure.Category](r.Categories), Never: r.Action == "never",
		}
	}
	return rules
}

func convert[T ~string](list []string) []T {
	converted := make([]T, len(list))
	for i, s := range list {
		converted[i] = T(s)
	}
	return converted
}

func sourceConfig(s config.Source) source.Config {
	cfg := source.Config{
		Name: s.Name, Driver: s.Driver, Path: s.Path, Timeout: s.Timeout.Std(), Delimiter: s.Delimiter,
		Person: source.PersonConfig{
			Relation: source.Relation{Table: s.Person.Table, Query: s.Person.Query, File: s.Person.File},
			Key:      s.Person.Key, BSN: s.Person.BSN, FamilyName: s.Person.FamilyName, GivenNames: s.Person.GivenNames,
			BirthDate: s.Person.BirthDate, Address: s.Person.Address,
		},
		Categories: map[disclosure.Category]source.CategoryConfig{},
	}
	for code, c := range s.Categories {
		cfg.Categories[disclosure.Category(code)] = source.CategoryConfig{
			Relation: source.Relation{Table: c.Table, Query: c.Query, File: c.File},
			Key:      c.Key, Fields: c.Fields, MaxRows: c.MaxRows, SecretWhen: c.SecretWhen,
		}
	}
	return cfg
}

// connector lets the agent read a source: the two packages do not know each other.
type connector struct{ source source.Connector }

// Read implements agent.Connector.
func (c connector) Read(
	ctx context.Context, person envelope.Identity, fields []disclosure.Field,
) ([]receipt.Record, []disclosure.Withheld, error) {
	result, err := c.source.Read(ctx, source.Person(person), fields)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", refusalOf(err), err)
	}
	records := make([]receipt.Record, len(result.Records))
	for i, r := range result.Records {
		values := make(map[string]string, len(r.Values))
		for field, value := range r.Values {
			values[field.Name()] = value
		}
		records[i] = receipt.Record{Category: r.Category, Values: values}
	}
	return records, result.Withheld, nil
}

// refusalOf gives the code with which the agent refuses after an error of a source.
func refusalOf(err error) disclosure.ReasonCode {
	switch {
	case errors.Is(err, source.ErrPersonNotFound):
		return disclosure.ReasonPersonNotFound
	case errors.Is(err, source.ErrPersonAmbiguous):
		return disclosure.ReasonPersonAmbiguous
	case errors.Is(err, source.ErrTooManyRows):
		return disclosure.ReasonTooManyRows
	}
	return disclosure.ReasonSourceFailed
}
