package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// call is what huma makes of a request of any operation, and reply what it
// writes. huma compiles 19 kB of code anew for each pair of types: so all
// operations have the same ones, and this file reads the input that is meant.
type call struct{ ctx huma.Context }

// Resolve is huma.Resolver's.
func (c *call) Resolve(ctx huma.Context) []error {
	c.ctx = ctx
	return nil
}

type reply struct {
	Status int
	Body   any
}

// register adds an operation. I is a struct of strings and bools with the tag
// path or query, and Body for JSON; what it has besides is its Resolve's. O is
// huma.StreamResponse, or a struct with Body, with Status, or with neither.
func register[I, O any](s *server, op huma.Operation, f func(context.Context, *I) (*O, error)) {
	s.register(op, reflect.TypeFor[I](), reflect.TypeFor[O](), func(ctx context.Context, in any) (any, error) { return f(ctx, in.(*I)) })
}

func (s *server) register(op huma.Operation, in, out reflect.Type, f func(context.Context, any) (any, error)) {
	r := reader{api: s.huma, in: in, most: op.MaxBodyBytes}
	r.describe(&op)
	run := func(ctx context.Context, c *call) (any, error) {
		v, err := r.read(c.ctx)
		if err != nil {
			return nil, err
		}
		return f(ctx, v)
	}
	defer r.describeBody(op)
	body, has := out.FieldByName("Body")
	switch {
	case out == reflect.TypeFor[huma.StreamResponse]():
		huma.Register(s.huma, op, func(ctx context.Context, c *call) (*huma.StreamResponse, error) {
			v, err := run(ctx, c)
			if err != nil {
				return nil, err
			}
			return v.(*huma.StreamResponse), nil
		})
	case !has:
		huma.Register(s.huma, op, func(ctx context.Context, c *call) (*struct{}, error) {
			_, err := run(ctx, c)
			return nil, err
		})
	default:
		if op.DefaultStatus == 0 {
			op.DefaultStatus = http.StatusOK
		}
		hint := op.OperationID + "Response"
		if out.Name() != "" {
			hint = out.Name() + body.Name
		}
		json := map[string]*huma.MediaType{"application/json": {Schema: huma.SchemaFromField(s.schemas(), body, hint)}}
		op.Responses = map[string]*huma.Response{strconv.Itoa(op.DefaultStatus): {Content: json}}
		huma.Register(s.huma, op, func(ctx context.Context, c *call) (*reply, error) {
			v, err := run(ctx, c)
			if err != nil {
				return nil, err
			}
			o := reflect.ValueOf(v).Elem()
			a := &reply{Status: op.DefaultStatus, Body: o.FieldByIndex(body.Index).Interface()}
			if st := o.FieldByName("Status"); st.IsValid() {
				a.Status = int(st.Int())
			}
			return a, nil
		})
	}
}

func (s *server) schemas() huma.Registry { return s.huma.OpenAPI().Components.Schemas }

// reader makes an operation's input of a request.
type reader struct {
	api    huma.API
	in     reflect.Type
	params []param
	body   []int // index of Body; nil: it has none
	schema *huma.Schema
	most   int64 // bytes of a body
}

// param is an input that stands in the path or the query.
type param struct {
	*huma.Param
	index []int
}

// describe finds what the input is made of, and says so in the operation.
func (r *reader) describe(op *huma.Operation) {
	schemas := r.api.OpenAPI().Components.Schemas
	for _, f := range fields(r.in, nil) {
		p := param{&huma.Param{}, f.Index}
		switch {
		case f.Tag.Get("path") != "":
			p.Name, p.In, p.Required = f.Tag.Get("path"), "path", true
		case f.Tag.Get("query") != "":
			p.Name, p.In, p.Required, p.Explode = f.Tag.Get("query"), "query", f.Tag.Get("required") == "true", new(bool)
		case f.Name == "Body":
			hint := op.OperationID + "Request"
			if r.in.Name() != "" {
				hint = r.in.Name() + f.Name
			}
			r.body, r.schema = f.Index, huma.SchemaFromField(schemas, f, hint)
			r.schema.PrecomputeMessages()
			continue
		default:
			continue
		}
		if k := f.Type.Kind(); k != reflect.String && k != reflect.Bool {
			panic(fmt.Sprintf("%s: %s is no string and no bool", op.OperationID, f.Name))
		}
		p.Schema = huma.SchemaFromField(schemas, f, "")
		p.Description = p.Schema.Description
		r.params = append(r.params, p)
		op.Parameters = append(op.Parameters, p.Param)
	}
}

// describeBody says what the body is, of an operation that huma knows: it would
// read the body itself if it had known before.
func (r *reader) describeBody(op huma.Operation) {
	if r.body != nil {
		r.api.OpenAPI().Paths[op.Path].Post.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: r.schema}}}
	}
}

// fields are those of a struct and of the structs that it embeds.
func fields(t reflect.Type, at []int) (all []reflect.StructField) {
	for i := range t.NumField() {
		f := t.Field(i)
		f.Index = append(slices.Clone(at), i)
		if f.Anonymous {
			all = append(all, fields(f.Type, f.Index)...)
			continue
		}
		all = append(all, f)
	}
	return all
}

// read reads and judges the input: a pointer to a new one.
func (r *reader) read(ctx huma.Context) (any, error) {
	v := reflect.New(r.in)
	res, path := &huma.ValidateResult{}, huma.NewPathBuffer(nil, 0)
	r.known(ctx, path, res)
	if len(res.Errors) > 0 {
		return nil, wrongInput(res)
	}
	for _, p := range r.params {
		path.Reset()
		path.Push(p.In)
		path.Push(p.Name)
		if pv := p.parse(ctx, path, res, v.Elem().FieldByIndex(p.index)); pv != nil {
			huma.Validate(r.api.OpenAPI().Components.Schemas, p.Schema, path, huma.ModeWriteToServer, pv, res)
		}
	}
	if r.body != nil {
		path.Reset()
		path.Push("body")
		if err := r.readBody(ctx, path, res, v.Elem().FieldByIndex(r.body)); err != nil {
			return nil, err
		}
	}
	if len(res.Errors) > 0 {
		return nil, wrongInput(res)
	}
	if own, ok := v.Interface().(huma.Resolver); ok {
		own.Resolve(ctx)
	}
	return v.Interface(), nil
}

func wrongInput(res *huma.ValidateResult) error {
	return huma.NewError(http.StatusUnprocessableEntity, "validation failed", res.Errors...)
}

// known refuses queries that the operation does not have.
func (r *reader) known(ctx huma.Context, path *huma.PathBuffer, res *huma.ValidateResult) {
	u := ctx.URL()
next:
	for key := range u.Query() {
		for _, p := range r.params {
			if p.In == "query" && p.Name == key {
				continue next
			}
		}
		path.Reset()
		path.Push("query")
		path.Push(key)
		res.Add(path, "", "unknown query parameter")
	}
}

// parse sets a field, and returns what it was set to; nil: it is not there, or
// wrong.
func (p param) parse(ctx huma.Context, path *huma.PathBuffer, res *huma.ValidateResult, f reflect.Value) any {
	text := ctx.Param(p.Name)
	if p.In == "query" {
		text = ctx.Query(p.Name)
	}
	switch {
	case text == "" && p.Required:
		res.Add(path, "", "required "+p.In+" parameter is missing")
	case text == "":
	case f.Kind() == reflect.String:
		f.SetString(text)
		return text
	default:
		b, err := strconv.ParseBool(text)
		if err != nil {
			res.Add(path, text, "invalid boolean")
			return nil
		}
		f.SetBool(b)
		return b
	}
	return nil
}

// readBody reads, judges and sets the body.
func (r *reader) readBody(ctx huma.Context, path *huma.PathBuffer, res *huma.ValidateResult, f reflect.Value) error {
	text, err := io.ReadAll(io.LimitReader(ctx.BodyReader(), r.most))
	var late net.Error
	switch {
	case int64(len(text)) == r.most:
		return huma.NewError(http.StatusRequestEntityTooLarge, fmt.Sprintf("request body is too large limit=%d bytes", r.most))
	case errors.As(err, &late) && late.Timeout():
		return huma.NewError(http.StatusRequestTimeout, "request body read timeout")
	case err != nil:
		return huma.NewError(http.StatusInternalServerError, "cannot read request body", err)
	case len(bytes.TrimSpace(text)) == 0 && f.Kind() == reflect.Pointer: // it may be left out
		return nil
	case len(bytes.TrimSpace(text)) == 0:
		return huma.NewError(http.StatusBadRequest, "request body is required")
	}
	kind := ctx.Header("Content-Type")
	if kind == "" {
		kind = "application/json"
	}
	var parsed any
	if err := r.api.Unmarshal(kind, text, &parsed); err != nil {
		code := http.StatusBadRequest
		if errors.Is(err, huma.ErrUnknownContentType) {
			code = http.StatusUnsupportedMediaType
		}
		return huma.NewError(code, "validation failed", append(res.Errors, &huma.ErrorDetail{Location: "body", Message: err.Error(), Value: string(text)})...)
	}
	before := len(res.Errors)
	huma.Validate(r.api.OpenAPI().Components.Schemas, r.schema, path, huma.ModeWriteToServer, parsed, res)
	if len(res.Errors) > before {
		return nil
	}
	if err := r.api.Unmarshal(kind, text, f.Addr().Interface()); err != nil {
		res.Errors = append(res.Errors, &huma.ErrorDetail{Location: "body", Message: err.Error(), Value: string(text)})
	}
	return nil
}
