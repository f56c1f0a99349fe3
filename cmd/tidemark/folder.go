package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
)

// folderFlag is the state folder of the verbs that look into one: --state or
// --dir, or the environment.
type folderFlag struct{ dir string }

// folderVariable names the folder where no flag does.
const folderVariable = "TIDEMARK_STATE"

func (f *folderFlag) register(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&f.dir, "state", "", "state folder `DIR`, the one given to tidemark run --state; default: $"+folderVariable)
	f.registerDir(cmd)
}

// registerDir is for where --state means something else.
func (f *folderFlag) registerDir(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&f.dir, "dir", "", "state folder `DIR`; the same as --state DIR of other verbs")
}

func (f *folderFlag) given() error {
	if f.dir == "" {
		f.dir = os.Getenv(folderVariable)
	}
	if f.dir == "" {
		return usageError{errors.New("which state folder? Give --state DIR, the one that the job is run with, or set " + folderVariable)}
	}
	return nil
}

// saved finds a savepoint, a checkpoint or an exported file; for the last no
// folder is needed.
func (f *folderFlag) saved(name string) (*durable.Saved, error) {
	if f.given() != nil {
		v, err := durable.OpenExport(name)
		if errors.Is(err, store.ErrMissing) {
			return nil, usageError{fmt.Errorf("there is no file %s; for a savepoint of a state folder give --dir DIR, or set %s", name, folderVariable)}
		}
		return v, err
	}
	s, err := f.view()
	if err != nil {
		return nil, err
	}
	return s.Saved(name)
}

// view opens the folder for reading; a job may run on it.
func (f *folderFlag) view() (*durable.State, error) {
	if err := f.given(); err != nil {
		return nil, err
	}
	return durable.View(f.dir)
}

// change opens the folder for writing, for do.
func (f *folderFlag) change(do func(*durable.State) error) (err error) {
	if _, err := f.view(); err != nil { // a folder that is not there is not made
		return err
	}
	s, err := durable.Open(f.dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return do(s)
}

// timeText is an instant for people, to the second.
func timeText(t dataflow.Time) string {
	if t == dataflow.MinTime {
		return "none"
	}
	return t.GoTime().Truncate(time.Second).Format(time.RFC3339)
}

// exactly returns a cobra check of the number of arguments, with words that
// say what is wanted.
func exactly(n int, wanted string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("wanted: %s; given: %s", wanted, quotedArgs(args))}
		}
		return nil
	}
}

func quotedArgs(args []string) string {
	if len(args) == 0 {
		return "nothing"
	}
	all := make([]string, len(args))
	for i, a := range args {
		all[i] = strconv.Quote(a)
	}
	return strings.Join(all, ", ")
}
