package runtime

import (
	"context"
	"fmt"
)

// sync has the state read that the operator of a link waits for.
func (d *driver) sync(ctx context.Context, link int) error {
	if d.backings[link] == nil {
		return fmt.Errorf("operator %q waits for state on disk, but has no Backing", d.sub.Config.Links[link].ID)
	}
	d.calling = d.sub.Config.Links[link].ID
	err := d.backings[link].Sync(ctx)
	d.calling = ""
	if err != nil {
		return fmt.Errorf("state of %q: %w", d.sub.Config.Links[link].ID, err)
	}
	return nil
}

// syncAll has what operators put on disk written, between batches.
func (d *driver) syncAll(ctx context.Context) error {
	for i, b := range d.backings {
		if b != nil {
			if err := d.sync(ctx, i); err != nil {
				return err
			}
		}
	}
	return nil
}
