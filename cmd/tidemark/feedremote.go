package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
)

// This file is the verbs about feeds, at an agent.

func showFeeds(t *terminal, list []api.Feed) {
	w := newTable(t, "feed", "broker", "topics", "lanes", "owner", "copies", "entries", "size", "state")
	for _, f := range list {
		state, _, _ := strings.Cut(f.State, ":")
		w.AppendRow([]any{f.Name, sourceOf(f), strings.Join(f.Topics, " "), f.Lanes, f.Owner, strings.Join(f.Members, " "), f.Entries, api.BytesText(f.Bytes), state})
	}
	w.Render()
	for _, f := range list { // sentences stand below: they are too long for a table
		if said := feedState(f); strings.ContainsAny(said, ":;") || f.Error != "" {
			fmt.Fprintf(t.err, "%s: %s\n", f.Name, said)
		}
		if f.Hint != "" {
			fmt.Fprintf(t.err, "%s: %s\n", f.Name, f.Hint)
		}
	}
}

// sourceOf is where a feed has its messages from.
func sourceOf(f api.Feed) string {
	if f.Mirror != nil {
		return "mirror of " + f.Mirror.Site + "/" + f.Mirror.Feed
	}
	return f.Broker
}

func feedState(f api.Feed) string {
	switch {
	case f.Error != "":
		return f.Error
	case f.Why != "":
		return f.State + "; nothing is acknowledged: " + f.Why
	}
	return f.State
}

func listFeedsRemote(ctx context.Context, t *terminal, c *api.Client) error {
	list, err := c.Feeds(ctx)
	if err != nil {
		return err
	}
	if !t.json() {
		showFeeds(t, list)
		return nil
	}
	for _, f := range list {
		if err := json.NewEncoder(t.out).Encode(f); err != nil {
			return err
		}
	}
	return nil
}

func showFeedRemote(ctx context.Context, t *terminal, c *api.Client, name string) error {
	f, err := c.Feed(ctx, name)
	if err != nil {
		return err
	}
	if t.json() {
		return json.NewEncoder(t.out).Encode(f)
	}
	fmt.Fprintf(t.out, "%s: %s, %s, qos %d, client id %q, %s\n", f.Name, sourceOf(f), strings.Join(f.Topics, " "), f.QoS, f.ClientID, feedState(f))
	fmt.Fprintf(t.out, "log: epoch %d, owner %s, copies on %s, %d entries, %s\n", f.Epoch, orNone(f.Owner), orNone(strings.Join(f.Members, ", ")), f.Entries, api.BytesText(f.Bytes))
	if m := f.Mirror; m != nil && m.Heard > 0 {
		fmt.Fprintf(t.out, "it lacks %d entries of its source, %s, %v\n", m.Entries, api.BytesText(m.Bytes), time.Duration(m.Time)*time.Millisecond)
		if m.Lost > 0 {
			fmt.Fprintf(t.out, "%d entries were not kept there until it had them\n", m.Lost)
		}
	}
	for _, m := range f.Mirrors {
		said := fmt.Sprintf("lacks %d entries", m.Entries)
		if m.Let {
			said = "begins anew: what it lacks is not kept any more"
		}
		fmt.Fprintf(t.out, "mirror at site %s: %s\n", m.Site, said)
	}
	switch {
	case f.Hint != "":
		fmt.Fprintln(t.out, f.Hint)
	case f.Job != "":
		fmt.Fprintf(t.out, "it is of job %s, and goes when that is forgotten\n", f.Job)
	}
	if len(f.Readers) > 0 {
		fmt.Fprintf(t.out, "read by %s\n", strings.Join(f.Readers, ", "))
	}
	return nil
}

// request is the feed as an agent is asked for it.
func (f *feedFlags) request(name string) (api.NewFeed, error) {
	c, err := f.config()
	if err != nil {
		return api.NewFeed{}, err
	}
	n := api.NewFeed{
		Name: name, Broker: f.broker, Topics: f.topics, QoS: f.qos, Lanes: f.lanes, ClientID: f.clientID, Username: f.username, Password: f.password,
		Retained: f.retained, KeepAge: int64(c.Keep.Age.Go().Milliseconds()), KeepSize: c.Keep.Size, Cap: c.Keep.Cap, CA: f.ca, Cert: f.cert, Key: f.key,
		Replicas: f.replicas, WhenShort: f.whenShort,
	}
	if !c.Password.Stored() {
		return n, usageError{fmt.Errorf("--password is text; give a reference, ${env:NAME} or ${file:PATH}, which is looked up on the agent that connects")}
	}
	if f.whenShort != "block" && f.whenShort != "degrade" {
		return n, usageError{fmt.Errorf("--when-short %q: it is block or degrade", f.whenShort)}
	}
	if len(f.topics) == 0 {
		return n, usageError{fmt.Errorf("which topics? Give --topic FILTER")}
	}
	return n, nil
}
