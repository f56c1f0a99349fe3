package part

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// kinds adds the store's kind to an error of the disk.
func kinds(err error, doing, name string) error {
	err = written(err, doing, name)
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, store.ErrMissing) {
		return fmt.Errorf("%w: %w", store.ErrMissing, err)
	}
	return err
}

// written is kinds for what writes: a folder that is gone says nothing of a part.
func written(err error, doing, name string) error {
	var of *fs.PathError
	if errors.As(err, &of) && of.Path == name {
		err = of.Err // the name is said once
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrFull), errors.Is(err, store.ErrCorrupt), errors.Is(err, store.ErrMissing):
		return err
	case disk.IsFull(err):
		return fmt.Errorf("%s %s: %w", doing, name, disk.Full(err))
	}
	return fmt.Errorf("%s %s: %w", doing, name, err)
}
