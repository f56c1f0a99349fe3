package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidemark-mesh/tidemark/coordinator/consensus"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/store"
)

// problem writes an error where no operation does.
func problem(w http.ResponseWriter, status int, format string, args ...any) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(&huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: fmt.Sprintf(format, args...)}) // who asked may be gone
}

// refusal is an error with a status.
func refusal(status int, format string, args ...any) error {
	return huma.NewError(status, fmt.Sprintf(format, args...))
}

// later is an error where nothing was done, and soon may be.
func later(format string, args ...any) error {
	return huma.ErrorWithHeaders(refusal(http.StatusServiceUnavailable, format, args...), http.Header{"Retry-After": {retryAfter}})
}

// failed gives an error of the backend its status. Those that have one keep it.
func failed(err error) error {
	var known huma.StatusError
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(err, ErrNoLeader):
		return later("the site has no leader at the moment, so nothing was done; a majority of its voters must run and reach each other: see `tidemark member list`")
	case errors.Is(err, ErrNotLeader) || errors.Is(err, consensus.ErrNotLeader):
		return later("the leader of the site is changing, so nothing was done; ask again")
	case errors.Is(err, consensus.ErrUnknown):
		return refusal(http.StatusServiceUnavailable, "the leader of the site changed meanwhile, and it is not known whether it was done; look before you ask again")
	case errors.Is(err, jobmanager.ErrUnknown) || errors.Is(err, store.ErrMissing):
		return refusal(http.StatusNotFound, "%v", err)
	case errors.Is(err, jobmanager.ErrExists) || errors.Is(err, jobmanager.ErrRefused) || errors.Is(err, jobmanager.ErrStale):
		return refusal(http.StatusConflict, "%v", err)
	case errors.Is(err, restore.ErrRefused) || errors.Is(err, store.ErrCorrupt):
		return refusal(http.StatusUnprocessableEntity, "%v", err)
	case errors.Is(err, consensus.ErrNoRoom) || errors.Is(err, store.ErrFull):
		return refusal(http.StatusInsufficientStorage, "%v; make room on the disk", err)
	case errors.Is(err, consensus.ErrTooLarge):
		return refusal(http.StatusRequestEntityTooLarge, "%v", err)
	case errors.Is(err, context.DeadlineExceeded):
		return refusal(http.StatusGatewayTimeout, "it took too long; what was asked may still be done")
	}
	return refusal(http.StatusInternalServerError, "%v", err)
}

// malformed is the title of a problem that is the request's own form.
const malformed = "The request is not as /openapi.json says"

// sentence makes one of what the validation of a request found.
func sentence(_ huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok || len(e.Errors) == 0 || e.Detail != "validation failed" {
		return v, nil
	}
	var all []string
	for _, d := range e.Errors {
		d.Value = nil // it may be long, or a secret
		all = append(all, strings.TrimPrefix(strings.TrimPrefix(d.Location, "body.")+": "+d.Message, ": "))
	}
	e.Title = malformed
	e.Detail = strings.Join(all, "; ") + " (/openapi.json says what is possible)"
	return e, nil
}
