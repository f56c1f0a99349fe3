package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
)

// loadFlags are the flags of every verb that reads a job file.
type loadFlags struct {
	set         []string
	parallelism int
}

func (f *loadFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.set, "set", nil, "replace a value of the job: sources.in.file.path=other.csv (may be repeated)")
	cmd.Flags().VarP((*subtasks)(&f.parallelism), "parallelism", "p", "replace the job's parallelism")
}

// subtasks is the value of --parallelism; 0, the default, leaves it to the job.
type subtasks int

func (s *subtasks) String() string {
	if *s == 0 {
		return ""
	}
	return strconv.Itoa(int(*s))
}

func (s *subtasks) Type() string { return "int" }

func (s *subtasks) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > dataflow.MaxMaxParallelism {
		return fmt.Errorf("it is a whole number, at least 1 and at most %d", dataflow.MaxMaxParallelism)
	}
	*s = subtasks(n)
	return nil
}

// load reads and checks a job; everything that is wrong with it is printed.
func (f *loadFlags) load(ctx context.Context, t *terminal, file string) (*job.Job, error) {
	text, err := readJob(ctx, t, file)
	if err != nil {
		return nil, err
	}
	j, err := f.parse(t, file, text)
	if err == nil && file == "-" {
		err = spareStdin(j)
	}
	return j, err
}

func (f *loadFlags) parse(t *terminal, file string, text []byte) (*job.Job, error) {
	secrets := machineSecrets()
	j, err := job.Load(file, text, job.Options{Set: f.set, Parallelism: f.parallelism, Resolver: &secrets})
	var wrong job.Errors
	if errors.As(err, &wrong) {
		reportErrors(t, file, wrong)
		return nil, errReported
	}
	return j, err
}

// spareStdin refuses a source whose rows the job's own text has used up.
func spareStdin(j *job.Job) error {
	for _, s := range j.Sources {
		if s.File != nil && s.File.Path == "-" {
			return fmt.Errorf("source %q reads stdin, and so was the job; put the job into a file", s.ID)
		}
	}
	return nil
}

func readJob(ctx context.Context, t *terminal, file string) ([]byte, error) {
	if file == "-" {
		return readStdin(ctx, t.in)
	}
	f, err := os.Open(file)
	if err == nil {
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, maxJobFile))
		if err == nil {
			return text, nil
		}
		return nil, fmt.Errorf("job file: %w; give the path of a job, such as configs/wordcount.yaml", err)
	}
	return nil, fmt.Errorf("job file: %w; give the path of a job, such as configs/wordcount.yaml", err)
}

// readStdin reads a job until its end or until the user interrupts; a read of a
// terminal cannot be called off, so it is left behind.
func readStdin(ctx context.Context, in io.Reader) ([]byte, error) {
	type read struct {
		text []byte
		err  error
	}
	done := make(chan read, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(in, maxJobFile))
		done <- read{text, err}
	}()
	select {
	case r := <-done:
		return r.text, r.err
	case <-ctx.Done():
		return nil, errors.New("interrupted while the job was read from stdin")
	}
}

// maxJobFile is more than job.Load takes, so that it can say so. What is behind it
// is not read.
const maxJobFile = 2 << 20

func reportErrors(t *terminal, file string, wrong job.Errors) {
	if t.json() {
		enc := json.NewEncoder(t.err)
		for _, e := range wrong {
			_ = enc.Encode(map[string]any{"file": e.File, "line": e.Line, "key": e.Path, "message": e.Msg, "hint": e.Hint})
		}
		return
	}
	for _, e := range wrong {
		fmt.Fprintln(t.err, e)
	}
	what := "1 error"
	if len(wrong) > 1 {
		what = fmt.Sprintf("%d errors", len(wrong))
	}
	fmt.Fprintf(t.err, "%s: %s\n", file, what)
}

// machineSecrets resolves a job's secrets on this machine.
func machineSecrets() job.Resolver {
	return job.Resolver{
		Env: func(name string) (string, error) {
			v, ok := os.LookupEnv(name)
			if !ok {
				return "", errors.New("the variable is not set")
			}
			return v, nil
		},
		File: os.ReadFile,
	}
}

// refuseNotYet prints what this version, or a run without kept state, does not
// act on; what would change results is refused.
func refuseNotYet(t *terminal, j *job.Job, withState bool) error {
	fatal := 0
	ignored := j.NotYet
	if !withState {
		ignored = append(ignored[:len(ignored):len(ignored)], j.WithState...)
	}
	for _, n := range ignored {
		word := "note"
		if n.Fatal {
			word = "error"
			fatal++
		}
		fmt.Fprintf(t.err, "%s: %s: %v\n", j.File, word, n)
	}
	for _, n := range j.Warnings {
		fmt.Fprintf(t.err, "%s: warning: %v\n", j.File, n)
	}
	if fatal > 0 {
		return errReported
	}
	return nil
}

// jobFile is the arguments of a verb that takes a job.
func jobFile(_ *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return usageError{errors.New("which job? Give its file, JOB.yaml")}
	case 1:
		return nil
	}
	return usageError{fmt.Errorf("one job at a time; %q is too much", args[1:])}
}

// jobFileAndSource is jobFile with the name of a source behind it, or none.
func jobFileAndSource(cmd *cobra.Command, args []string) error {
	if len(args) > 2 {
		return usageError{fmt.Errorf("one source at a time; %q is too much", args[2:])}
	}
	return jobFile(cmd, args[:min(1, len(args))])
}
