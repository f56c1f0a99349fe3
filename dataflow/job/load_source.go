package job

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/dedupe"
	"github.com/tidemark-mesh/tidemark/sensors/decode"
)

// compileSource reads a source's connector, columns and time.
func (l *loader) compileSource(o *op) {
	s := &Source{ID: o.node.ID, Parallelism: o.parallelism, Time: Time{EventAt: -1, DeviceAt: -1, Arrival: -1}}
	o.source, o.node.Source = s, s
	o.lost = make(map[string]bool)
	if !l.sourceConnector(o, s) {
		o.obj.entries() // what else may stand there depends on the connector
		return
	}
	if s.Generate != nil {
		s.Columns = GenerateSchema()
		for _, key := range []string{"format", "fields", "header", "columns"} {
			if v := o.obj.take(key); v.given() {
				v.fail("remove it: the columns are "+s.Columns.String(), "generate makes its own columns")
			}
		}
	} else {
		l.format(o, s)
		s.rejected = RejectedSchema()
	}
	o.columns = s.Columns
	if s.Columns != nil {
		l.time(o, s)
		s.Dedupe = l.dedupe(o, s)
	} else {
		o.obj.entries()
	}
	o.node.Describe = describeSource(s)
	l.job.Sources = append(l.job.Sources, s)
}

// sourceConnector reads the one connector; false if there is none.
func (l *loader) sourceConnector(o *op, s *Source) bool {
	names := []string{"mqtt", "feed", "file", "generate"}
	v, name := l.oneConnector(o, names)
	switch name {
	case "mqtt":
		s.MQTT = l.mqttSource(v)
	case "feed":
		name, _ := v.feedName()
		s.Feed = &FeedSource{Name: name}
		l.withState(v, true, "a feed is kept with the state: give the run its folder with --state")
	case "file":
		s.File = &FileSource{}
		fo := v.object()
		s.File.Path, _ = fo.need("path", "a file, a glob, or - for stdin").text()
		fo.close()
	case "generate":
		s.Generate = l.generate(v)
	default:
		return false
	}
	return true
}

// oneConnector finds the one key of o that names a connector.
func (l *loader) oneConnector(o *op, names []string) (value, string) {
	var v value
	var name string
	for _, n := range names {
		c := o.obj.take(n)
		switch {
		case !c.given():
		case name != "":
			c.fail("split it into two", "there is a %s already: one connector each", name)
		default:
			v, name = c, n
		}
	}
	if name != "" {
		return v, name
	}
	hint := "one of " + strings.Join(names, ", ")
	for _, k := range o.obj.keys {
		if n := nearest(k.node.Value, names); n != "" {
			hint = fmt.Sprintf("did you mean %q instead of %q?", n, k.node.Value)
		}
	}
	o.obj.fail(hint, "the %s has no connector", o.role)
	return value{}, ""
}

func (l *loader) mqttSource(v value) *MQTTSource {
	m := &MQTTSource{QoS: 1, Lanes: 1}
	o := v.object()
	m.Broker, m.TLS = l.broker(o)
	m.Username, m.Password = l.secret(o.take("username")), l.secret(o.take("password"))
	topics, where := o.need("topics", "topics: [plant/+/telemetry]").texts()
	for i, t := range topics {
		if msg := checkFilter(t); msg != "" {
			where[i].fail("", "the filter %q %s", t, msg)
		}
	}
	m.Topics = topics
	if n, ok := o.take("qos").integer(0, 2); ok {
		m.QoS = int(n)
	}
	m.ClientID, _ = o.take("client_id").text()
	n, _ := o.take("retained").oneOf("first", "all", "never")
	m.Retained = Retained(n)
	if n, ok := o.take("lanes").integer(1, 1024); ok {
		m.Lanes = int(n)
	}
	m.Keep = l.retention(o)
	o.close()
	return m
}

// retention reads how much of its log a feed keeps.
func (l *loader) retention(o *object) (r Retention) {
	v, most := o.take("retention"), o.take("cap")
	if v.given() {
		ro := v.object()
		age := ro.take("age")
		r.Age, _ = age.duration(0)
		size := ro.take("size")
		r.Size, _ = size.size(minLog)
		if ro != nil && !age.given() && !size.given() {
			v.fail("for example retention: {age: 7d, size: 10GB}", "retention says neither age nor size")
		}
		if ro != nil && size.given() && !age.given() {
			r.Age = math.MaxInt64 // bounded by its size alone
		}
		ro.close()
		l.withState(v, false, "a log is kept only with --state; without, messages are acknowledged when sinks commit")
	}
	if most.given() {
		r.Cap, _ = most.size(minLog)
		if r.Cap > 0 && r.Size > r.Cap {
			most.fail("raise it, or lower retention.size", "%s is less than what retention keeps, %s", FormatSize(r.Cap), FormatSize(r.Size))
		}
		l.withState(most, false, "a log is kept only with --state; without, messages are acknowledged when sinks commit")
	}
	return r
}

// minLog is the least that a log can be asked to keep within: a segment.
const minLog = 1 << 20

func (l *loader) generate(v value) *GenerateSource {
	g := &GenerateSource{Rate: 1000, Keys: 100, Seed: 1}
	o := v.object()
	if n, ok := o.take("rate").integer(0, 1_000_000_000); ok {
		g.Rate = n
	}
	if n, ok := o.take("keys").integer(1, 100_000_000); ok {
		g.Keys = int(n)
	}
	g.Rows, _ = o.take("rows").integer(0, math.MaxInt64)
	if n, ok := o.take("seed").integer(0, math.MaxInt64); ok {
		g.Seed = uint64(n)
	}
	g.Disorder, _ = o.take("disorder").duration(0)
	o.close()
	return g
}

// broker reads where an MQTT connector connects to.
func (l *loader) broker(o *object) (url string, tls TLS) {
	v := o.need("broker", "broker: mqtt://127.0.0.1:1883")
	url, ok := v.text()
	if ok {
		if msg, hint := checkBroker(url); msg != "" {
			v.fail(hint, "%s", msg)
		}
	}
	t := o.take("tls")
	if !t.given() {
		return url, tls
	}
	to := t.object()
	tls.CA, _ = to.take("ca").text()
	tls.Cert, _ = to.take("cert").text()
	tls.Key, _ = to.take("key").text()
	tls.ServerName, _ = to.take("server_name").text()
	to.close()
	if (tls.Cert == "") != (tls.Key == "") {
		t.fail("", "cert and key belong together")
	}
	if ok && !strings.HasPrefix(url, "mqtts:") && !strings.HasPrefix(url, "ssl:") && !strings.HasPrefix(url, "wss:") {
		t.fail("write mqtts://", "the broker's address has no TLS")
	}
	return url, tls
}

func checkBroker(url string) (msg, hint string) {
	scheme, rest, ok := strings.Cut(url, "://")
	schemes := []string{"mqtt", "mqtts", "tcp", "ssl", "ws", "wss"}
	known := false
	for _, s := range schemes {
		known = known || s == scheme
	}
	host, _, _ := strings.Cut(rest, "/")
	switch {
	case !ok:
		return "a broker is a URL", "write mqtt://HOST:1883, or mqtts://HOST:8883"
	case !known:
		return fmt.Sprintf("unknown scheme %q", scheme), didYouMean(scheme, schemes)
	case strings.Contains(host, "@"):
		return "user and password do not belong into the address", "use username: and password: ${env:NAME}"
	case strings.Contains(url, "${"):
		return "only username and password may be references", "give the address with --set"
	case host == "" || strings.HasPrefix(host, ":") || strings.ContainsAny(host, " \t"):
		return "the address has no host", "write mqtt://HOST:1883"
	}
	return "", ""
}

// checkFilter says what is wrong with an MQTT topic filter.
func checkFilter(f string) string {
	levels := strings.Split(f, "/")
	if levels[0] == "$share" {
		if len(levels) < 3 || levels[1] == "" || strings.ContainsAny(levels[1], "+#") {
			return "must look like $share/GROUP/FILTER"
		}
		levels = levels[2:]
	}
	if strings.ContainsRune(f, 0) || len(f) > 65535 {
		return "is no MQTT text"
	}
	for i, level := range levels {
		switch {
		case level == "#" && i < len(levels)-1:
			return "has a # before its end"
		case level != "#" && level != "+" && strings.ContainsAny(level, "+#"):
			return "has a + or # that is not a level of its own"
		}
	}
	return ""
}

// filterLevels is how many levels a topic that matches has at least, and
// whether it may have more.
func filterLevels(f string) (n int, more bool) {
	levels := strings.Split(f, "/")
	if levels[0] == "$share" {
		levels = levels[min(2, len(levels)):]
	}
	if len(levels) > 0 && levels[len(levels)-1] == "#" {
		return len(levels) - 1, true
	}
	return len(levels), false
}

// secret reads a reference, and asks for it if somebody can be asked.
func (l *loader) secret(v value) Secret {
	s, ok := v.text()
	if !ok {
		return Secret{}
	}
	secret, msg := parseSecret(s)
	if msg != "" {
		v.fail("", "%s", msg)
		return secret
	}
	if l.opt.Resolver != nil {
		if _, err := secret.Resolve(*l.opt.Resolver); err != nil {
			v.fail("", "%s", err)
		}
	}
	return secret
}

// format reads how payloads become columns.
func (l *loader) format(o *op, s *Source) {
	before := len(l.errs)
	v := o.obj.need("format", "json, csv or text")
	header, columns := o.obj.take("header"), o.obj.take("columns")
	name := v
	if v.given() && v.node.Kind == yaml.MappingNode { // format: {csv: {header: true}}
		fo := v.object()
		for _, f := range []string{"json", "csv", "text"} {
			c := fo.take(f)
			if !c.given() {
				continue
			}
			name = value{l, textNode(f), v.path}
			co := c.object()
			if f == "csv" {
				header, columns = co.take("header"), co.take("columns")
			}
			co.close()
		}
		fo.close()
	}
	n, ok := name.oneOf("json", "csv", "text")
	if !ok {
		if o.obj.has("fields") { // what is wrong with them is wrong in any format
			l.fields(o, s)
		}
		return
	}
	s.Decode.Format = [...]decode.Format{decode.JSON, decode.CSV, decode.Text}[n]
	if s.Decode.Format == decode.Text {
		l.textFormat(o, s)
	} else {
		l.fields(o, s)
	}
	if s.Decode.Format == decode.CSV {
		l.csvColumns(s, header, columns)
	} else {
		for _, x := range []value{header, columns} {
			if x.given() {
				x.fail("remove it", "only format: csv has it")
			}
		}
	}
	if len(l.errs) > before {
		return
	}
	if _, err := decode.New(s.Decode, s.Columns); err != nil { // what only the decoder knows, such as paths that cross
		o.obj.take("fields").fail("", "%s", strings.TrimPrefix(err.Error(), "decode: "))
	}
}

// textFormat gives the source its one column.
func (l *loader) textFormat(o *op, s *Source) {
	if f := o.obj.take("fields"); f.given() {
		f.fail("remove it; take the line apart in a step", "format: text has one column, line")
	}
	s.Decode.Fields = []decode.Field{{Name: "line", Type: batch.String, Topic: -1}}
	s.Columns = batch.MustSchema(batch.Field{Name: "line", Type: batch.String})
}

// csvColumns reads where a CSV source's columns get their names.
func (l *loader) csvColumns(s *Source, header, columns value) {
	s.Decode.Header, _ = header.boolean()
	if columns.given() {
		names, where := columns.texts()
		seen := make(map[string]bool, len(names))
		for i, n := range names {
			if seen[n] {
				where[i].fail("", "the column %q is there twice", n)
			}
			seen[n] = true
		}
		if s.Decode.Header {
			columns.fail("keep one of them", "with header: true the file names its columns")
		}
		s.Decode.Columns = names
		for _, f := range s.Decode.Fields {
			if f.Topic < 0 && len(f.Path) == 1 && !seen[f.Path[0]] {
				columns.fail(didYouMean(f.Path[0], names), "the field %q reads a column %q that is not listed", f.Name, f.Path[0])
			}
		}
		return
	}
	if !s.Decode.Header {
		for _, f := range s.Decode.Fields { // the fields, in order, are the columns
			if f.Topic < 0 && len(f.Path) == 1 {
				s.Decode.Columns = append(s.Decode.Columns, f.Path[0])
			}
		}
	}
}

// fields reads the typed columns.
func (l *loader) fields(o *op, s *Source) {
	v := o.obj.need("fields", "the typed columns, for example fields: {temp: double}")
	if !v.given() {
		return
	}
	keys, vals := v.object().entries()
	if len(keys) == 0 && v.node.Kind == yaml.MappingNode {
		v.fail("", "needs at least one field")
	}
	var columns []batch.Field
	for i, k := range keys {
		f, ok := l.field(o, s, k.node.Value, vals[i])
		if !ok {
			o.lost[f.Name] = true
			continue
		}
		s.Decode.Fields = append(s.Decode.Fields, f)
		columns = append(columns, batch.Field{Name: f.Name, Type: f.Type})
	}
	s.Columns, _ = batch.NewSchema(columns...) // duplicate keys were refused by object
}

func (l *loader) field(o *op, s *Source, name string, v value) (decode.Field, bool) {
	f := decode.Field{Name: name, Path: []string{name}, Topic: -1}
	before := len(l.errs)
	if name == "" {
		v.fail("", "a column needs a name")
	}
	if v.node.Kind != yaml.MappingNode {
		f.Type, _ = l.columnType(v)
		return f, len(l.errs) == before
	}
	fo := v.object()
	if t := fo.need("type", "one of "+strings.Join(typeNames(), ", ")); t.given() {
		f.Type, _ = l.columnType(t)
	}
	path, topic := fo.take("path"), fo.take("topic")
	if path.given() {
		f.Path = l.fieldPath(s, path)
	}
	if n, ok := topic.integer(0, 127); ok {
		f.Topic, f.Path = int(n), nil
		l.topicLevel(s, topic, int(n))
		if path.given() {
			path.fail("keep one of them", "the field comes from the topic")
		}
	}
	if u := fo.take("unit"); u.given() {
		if f.Type != batch.Timestamp && f.Type != 0 {
			u.fail("", "only timestamps have a unit, %q is %s", name, f.Type)
		}
		n, _ := u.oneOf("ms", "s", "us", "ns", "rfc3339")
		f.Unit = [...]decode.Unit{decode.Milliseconds, decode.Seconds, decode.Microseconds, decode.Nanoseconds, decode.RFC3339}[n]
	}
	fo.close()
	return f, len(l.errs) == before
}

func typeNames() []string {
	var names []string
	for _, t := range batch.Types() {
		names = append(names, t.String())
	}
	return names
}

func (l *loader) columnType(v value) (batch.Type, bool) {
	s, ok := v.text()
	if !ok {
		return 0, false
	}
	t, ok := batch.TypeNamed(s)
	if !ok {
		v.fail(typeHint(s), "there is no type %q", s)
	}
	return t, ok
}

// typeHint knows the names that other systems use.
func typeHint(name string) string {
	for _, alias := range [...][2]string{
		{"int", "bigint"}, {"integer", "bigint"}, {"long", "bigint"}, {"int64", "bigint"}, {"number", "double"},
		{"float", "double"}, {"float64", "double"}, {"real", "double"}, {"bool", "boolean"}, {"text", "string"},
		{"varchar", "string"}, {"date", "timestamp"}, {"datetime", "timestamp"}, {"time", "timestamp"}, {"binary", "bytes"},
	} {
		if strings.EqualFold(name, alias[0]) {
			return fmt.Sprintf("did you mean %q?", alias[1])
		}
	}
	return didYouMean(name, typeNames())
}

// fieldPath reads a path: keys with dots between them, "[]" behind a key for
// each element of an array; or a list of keys, for keys with dots in them.
func (l *loader) fieldPath(s *Source, v value) []string {
	var path []string
	if v.node.Kind == yaml.SequenceNode {
		path, _ = v.texts()
	} else if text, ok := v.text(); ok {
		if s.Decode.Format == decode.CSV {
			return []string{text}
		}
		for _, key := range strings.Split(text, ".") {
			arrays := 0
			for ; strings.HasSuffix(key, "[]"); arrays++ {
				key = key[:len(key)-2]
			}
			if key != "" {
				path = append(path, key)
			} else if arrays == 0 {
				v.fail("", "the path %q has an empty key", text)
			}
			for range arrays {
				path = append(path, "[]")
			}
		}
	}
	if s.Decode.Format == decode.CSV && len(path) > 1 {
		v.fail("", "a CSV field's path is one column")
	}
	return path
}

// topicLevel checks that a field may come from a level of the topic.
func (l *loader) topicLevel(s *Source, v value, level int) {
	if s.MQTT == nil && s.Feed == nil {
		v.fail("", "a %s source has no topics", s.Connector())
		return
	}
	if s.MQTT == nil {
		return
	}
	for _, f := range s.MQTT.Topics {
		if n, more := filterLevels(f); level >= n && !more {
			v.fail(fmt.Sprintf("levels count from 0: use 0..%d", n-1), "topics of %q have no level %d", f, level)
			return
		}
	}
}

func (l *loader) dedupe(o *op, s *Source) *Dedupe {
	v := o.obj.take("dedupe")
	if !v.given() {
		return nil
	}
	d := &Dedupe{Entries: dedupe.DefaultEntries}
	do := v.object()
	names, where := do.need("by", "the columns that name a reading: by: [sensor, seq]").texts()
	for i, n := range names {
		switch c := l.column(o, s.Columns, where[i], n); {
		case slices.Contains(d.By, c):
			where[i].fail("", "the column %q is there twice", n)
		case c >= 0:
			d.By = append(d.By, c)
		}
	}
	within := do.need("within", "for example within: 10m")
	d.Within, _ = within.duration(dataflow.Microsecond)
	if n, ok := do.take("entries").integer(1, dedupe.MaxEntries); ok {
		d.Entries = int(n)
	}
	if within.given() && !l.hasClock(s) {
		l.warn(within, "a file has no arrival clock, so an id is remembered until its end; name one with arrival: FIELD")
	}
	do.close()
	return d
}

// column finds a column by name, or reports that there is none.
func (l *loader) column(o *op, schema *batch.Schema, v value, name string) int {
	c := schema.Index(name)
	if c < 0 && !o.lost[name] {
		v.fail(didYouMean(name, columnNames(schema)), "there is no column %q", name)
	}
	return c
}

func columnNames(s *batch.Schema) []string {
	names := make([]string, s.Len())
	for i, f := range s.Fields() {
		names[i] = f.Name
	}
	return names
}
