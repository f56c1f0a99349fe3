package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent/api"
)

// Variables that name the agent to talk to, and the token it wants.
const (
	addrVariable  = "TIDEMARK_ADDR"
	tokenVariable = "TIDEMARK_TOKEN"
	defaultAddr   = "http://127.0.0.1:7070"
)

// agentFlag is the agent that a verb talks to: --addr, or the environment.
type agentFlag struct{ addr string }

func (f *agentFlag) register(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&f.addr, "addr", "", "`URL` of an agent's API; default: $"+addrVariable+", or "+defaultAddr)
}

func (f *agentFlag) client() (*api.Client, error) {
	addr := f.addr
	if addr == "" {
		addr = os.Getenv(addrVariable)
	}
	if addr == "" {
		addr = defaultAddr
	}
	c, err := api.NewClient(addr, os.Getenv(tokenVariable))
	if err != nil {
		return nil, usageError{fmt.Errorf("--addr: %w", err)}
	}
	return c, nil
}

// placeFlag is where a verb looks: into a state folder, if one is named, else at
// an agent.
type placeFlag struct {
	folderFlag
	agentFlag
}

func (f *placeFlag) register(cmd *cobra.Command) {
	f.folderFlag.register(cmd)
	f.agentFlag.register(cmd)
}

// registerDir is for where --state means something else.
func (f *placeFlag) registerDir(cmd *cobra.Command) {
	f.folderFlag.registerDir(cmd)
	f.agentFlag.register(cmd)
}

// remote is the agent to ask; nil: a folder is named.
func (f *placeFlag) remote() (*api.Client, error) {
	switch {
	case f.dir != "" && f.addr != "":
		return nil, usageError{errors.New("--addr and a state folder: one or the other")}
	case f.addr == "" && f.given() == nil:
		return nil, nil
	}
	return f.client()
}

// answered makes of what an agent, or nobody, answered what a person needs.
func (f *placeFlag) answered(err error) error {
	if errors.Is(err, api.ErrNoAgent) {
		err = fmt.Errorf("%w; start one (tidemark agent --dev), name another with --addr or %s, or name a state folder with --state DIR, --dir DIR or %s", err, addrVariable, folderVariable)
		if f.addr == "" && os.Getenv(addrVariable) == "" {
			return usageError{err} // neither was named, and the default is not there
		}
	}
	return err
}

func (f *agentFlag) answered(err error) error {
	if errors.Is(err, api.ErrNoAgent) {
		return fmt.Errorf("%w; start one (tidemark agent --dev to try things out), or name another with --addr or %s", err, addrVariable)
	}
	return err
}

// reportProblem prints what an agent found wrong with a job, as check does.
func reportProblem(t *terminal, err error) error {
	var p *api.Problem
	if !errors.As(err, &p) || !p.Invalid() {
		return err
	}
	for _, e := range p.Errors {
		fmt.Fprintln(t.err, e)
	}
	fmt.Fprintln(t.err, p.Detail)
	return errReported
}

// copyOut prints what an agent streams, and tells of an end that came early.
func copyOut(w io.Writer, from io.ReadCloser) error {
	defer from.Close()
	to := &firstError{w: w}
	_, err := io.Copy(to, from)
	switch {
	case to.err != nil:
		return to.err
	case err != nil:
		return fmt.Errorf("what the agent sent broke off, and is not all: %w", err)
	}
	return nil
}

// firstError keeps why nothing more could be written.
type firstError struct {
	w   io.Writer
	err error
}

func (f *firstError) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if f.err == nil {
		f.err = err
	}
	return n, err
}
