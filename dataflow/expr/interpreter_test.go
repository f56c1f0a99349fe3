package expr

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// interpreter evaluates a typed tree for one row, slowly and plainly: values
// are Go values, null is nil, integers are big, patterns are regular
// expressions, dates are the time package's. The kernels must agree with it.
type interpreter struct {
	b         *batch.Batch
	row       int
	div, over int64
	errs      []string
}

func (in *interpreter) eval(n *node) any {
	v := in.value(n)
	if s, ok := v.(string); ok && n.op != opConst && n.op != opColumn && len(s) > maxText {
		in.errs = append(in.errs, tooLong)
		return nil
	}
	return v
}

func (in *interpreter) all(l []*node) (vs []any, null bool) {
	for _, n := range l {
		v := in.eval(n)
		vs = append(vs, v)
		null = null || v == nil
	}
	return vs, null
}

func (in *interpreter) value(n *node) any {
	switch n.op {
	case opConst:
		return goValue(n.typ, n.val)
	case opColumn:
		return goValue(n.typ, valueAt(in.b.Cols[n.col], in.row))
	case opAnd, opOr:
		var null bool
		for _, a := range n.args {
			switch in.eval(a) {
			case nil:
				null = true
			case n.op == opOr:
				return n.op == opOr
			}
		}
		if null {
			return nil
		}
		return n.op == opAnd
	case opIsNull, opIsNotNull:
		return (in.eval(n.args[0]) == nil) == (n.op == opIsNull)
	case opIsTrue, opIsFalse:
		return in.eval(n.args[0]) == (n.op == opIsTrue)
	case opIn:
		return in.oneOf(n)
	case opBetween:
		v, _ := in.all(n.args)
		low, high := test(opGe, v[0], v[1]), test(opLe, v[0], v[2])
		switch {
		case low == false || high == false:
			return false
		case low == nil || high == nil:
			return nil
		}
		return true
	case opCase, opSwitch:
		return in.caseOf(n)
	case opCoalesce:
		for _, a := range n.args {
			if v := in.eval(a); v != nil {
				return v
			}
		}
		return nil
	case opNullif:
		v, _ := in.all(n.args)
		if test(opEq, v[0], v[1]) == true {
			return nil
		}
		return v[0]
	case opLeast, opGreatest:
		return in.extreme(n)
	case opConcatSkip:
		s := ""
		for _, a := range n.args {
			if v := in.eval(a); v != nil {
				s += v.(string)
			}
		}
		return s
	}
	v, null := in.all(n.args)
	if null {
		return nil
	}
	return in.strict(n, v)
}

func goValue(t batch.Type, v value) any {
	switch {
	case v.null:
		return nil
	case t == batch.Boolean:
		return v.b
	case t == batch.Double:
		return v.f
	case t.Variable():
		return v.s
	}
	return v.i
}

func (in *interpreter) oneOf(n *node) any {
	v, null := in.all(n.args)
	if v[0] == nil {
		return nil
	}
	for _, x := range v[1:] {
		if test(opEq, v[0], x) == true {
			return true
		}
	}
	if null {
		return nil
	}
	return false
}

func (in *interpreter) caseOf(n *node) any {
	args := n.args
	var of any
	if n.op == opSwitch {
		of = in.eval(args[0])
		args = args[1:]
	}
	for ; len(args) > 1; args = args[2:] {
		cond := in.eval(args[0])
		if n.op == opSwitch {
			cond = test(opEq, of, cond)
		}
		if cond == true {
			return in.eval(args[1])
		}
	}
	return in.eval(args[0])
}

func (in *interpreter) extreme(n *node) any {
	var best any
	op := opLt
	if n.op == opGreatest {
		op = opGt
	}
	for _, a := range n.args {
		v := in.eval(a)
		switch {
		case v == nil:
		case best == nil || test(op, v, best) == true:
			best = v
		case isNaN(v) && op == opGt, isNaN(best) && op == opLt:
			best = v
		}
	}
	return best
}

func isNaN(v any) bool {
	f, ok := v.(float64)
	return ok && math.IsNaN(f)
}

// test is a comparison with nulls.
func test(op opcode, x, y any) any {
	if x == nil || y == nil {
		return nil
	}
	less, equal := false, x == y
	switch a := x.(type) {
	case bool:
		less = !a && y.(bool)
	case int64:
		less = a < y.(int64)
	case float64:
		less = a < y.(float64)
	case string:
		less = a < y.(string)
	}
	if (isNaN(x) || isNaN(y)) && op != opNe {
		return false
	}
	switch op {
	case opEq:
		return equal
	case opNe:
		return !equal
	case opLt:
		return less
	case opLe:
		return less || equal
	case opGt:
		return !less && !equal
	}
	return !less
}

// strict evaluates what is null as soon as an argument is.
func (in *interpreter) strict(n *node, v []any) any {
	switch n.op {
	case opEq, opNe, opLt, opLe, opGt, opGe:
		return test(n.op, v[0], v[1])
	case opNot:
		return !v[0].(bool)
	case opAdd, opSub, opMul, opDiv, opMod, opNeg, opAbs, opRound:
		if _, double := v[0].(float64); double {
			return doubleResult(n, v)
		}
		return in.bigResult(n, v)
	case opFloor, opCeil, opSqrt, opLn, opExp, opPower:
		return doubleResult(n, v)
	case opCast:
		return in.cast(n, v[0])
	case opLike:
		return likePattern(v[1].(string), n.escape).MatchString(v[0].(string))
	case opDateTrunc, opExtract, opToMillis, opFromMillis:
		return in.timeResult(n, v[0].(int64))
	}
	return textResult(n, v)
}

func doubleResult(n *node, v []any) any {
	x, y := v[0].(float64), 0.0
	if len(v) > 1 {
		y = v[1].(float64)
	}
	switch n.op {
	case opAdd:
		return x + y
	case opSub:
		return x - y
	case opMul:
		return x * y
	case opDiv:
		return x / y
	case opMod:
		return math.Mod(x, y)
	case opNeg:
		return -x
	case opAbs:
		return math.Abs(x)
	case opFloor:
		return math.Floor(x)
	case opCeil:
		return math.Ceil(x)
	case opSqrt:
		return math.Sqrt(x)
	case opLn:
		return math.Log(x)
	case opExp:
		return math.Exp(x)
	case opPower:
		return math.Pow(x, y)
	}
	switch { // round
	case n.digits == 0:
		return math.Round(x)
	case n.digits < 0:
		return math.Round(x/math.Pow10(int(-n.digits))) * math.Pow10(int(-n.digits))
	case math.Abs(x) < 1<<53:
		return math.Round(x*math.Pow10(int(n.digits))) / math.Pow10(int(n.digits))
	}
	return x
}

// bigResult calculates without bounds and then looks whether they were kept.
func (in *interpreter) bigResult(n *node, v []any) any {
	x, z := big.NewInt(v[0].(int64)), new(big.Int)
	y := new(big.Int)
	if len(v) > 1 {
		y.SetInt64(v[1].(int64))
	}
	if (n.op == opDiv || n.op == opMod) && y.Sign() == 0 {
		in.div++
		return nil
	}
	switch n.op {
	case opAdd:
		z.Add(x, y)
	case opSub:
		z.Sub(x, y)
	case opMul:
		z.Mul(x, y)
	case opDiv:
		z.Quo(x, y)
	case opMod:
		z.Rem(x, y)
	case opNeg:
		z.Neg(x)
	case opAbs:
		z.Abs(x)
	case opRound: // sign * ((2|x| + u) div 2u) * u
		u := new(big.Int).Exp(big.NewInt(10), big.NewInt(-n.digits), nil)
		z.Abs(x)
		z.Add(z.Lsh(z, 1), u)
		z.Quo(z, new(big.Int).Lsh(u, 1))
		z.Mul(z, u)
		z.Mul(z, big.NewInt(int64(x.Sign())))
	}
	return in.bounded(z)
}

func (in *interpreter) bounded(z *big.Int) any {
	if !z.IsInt64() {
		in.over++
		return nil
	}
	return z.Int64()
}

func (in *interpreter) timeResult(n *node, us int64) any {
	switch n.op {
	case opFromMillis:
		return in.bounded(new(big.Int).Mul(big.NewInt(us), big.NewInt(1000)))
	case opToMillis:
		return time.UnixMicro(us).UnixMilli()
	}
	t := time.UnixMicro(us).UTC()
	if n.op == opExtract {
		_, isoWeek := t.ISOWeek()
		return map[unit]int64{
			second: int64(t.Second()), minute: int64(t.Minute()), hour: int64(t.Hour()), day: int64(t.Day()), week: int64(isoWeek),
			month: int64(t.Month()), quarter: int64(t.Month()+2) / 3, year: int64(t.Year()), doy: int64(t.YearDay()),
			dow: int64(t.Weekday()), epoch: t.Unix(),
		}[n.unit]
	}
	midnight := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	switch n.unit {
	case microsecond:
	case millisecond:
		t = t.Add(-time.Duration(t.Nanosecond() % 1e6))
	case second:
		t = t.Add(-time.Duration(t.Nanosecond()))
	case minute:
		t = time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), 0, 0, time.UTC)
	case hour:
		t = time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), 0, 0, 0, time.UTC)
	case day:
		t = midnight
	case week:
		t = midnight.AddDate(0, 0, -(int(t.Weekday())+6)%7)
	case month:
		t = time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
	case quarter:
		t = time.Date(t.Year(), (t.Month()-1)/3*3+1, 1, 0, 0, 0, 0, time.UTC)
	case year:
		t = time.Date(t.Year(), 1, 1, 0, 0, 0, 0, time.UTC)
	}
	z := new(big.Int).Mul(big.NewInt(t.Unix()), big.NewInt(1e6))
	return in.bounded(z.Add(z, big.NewInt(int64(t.Nanosecond()/1000))))
}

func textResult(n *node, v []any) any {
	s := v[0].(string)
	switch n.op {
	case opConcat:
		for _, x := range v[1:] {
			s += x.(string)
		}
		return s
	case opLower:
		return strings.ToLower(s)
	case opUpper:
		return strings.ToUpper(s)
	case opTrim:
		return strings.Trim(s, " ")
	case opLength:
		if n.args[0].typ == batch.Bytes {
			return int64(len(s))
		}
		return int64(utf8.RuneCountInString(s))
	case opReplace:
		if v[1] == "" {
			return s
		}
		return strings.ReplaceAll(s, v[1].(string), v[2].(string))
	case opStartsWith:
		return strings.HasPrefix(s, v[1].(string))
	case opSplitPart:
		parts := []string{s}
		if v[1] != "" {
			parts = strings.Split(s, v[1].(string))
		}
		k := v[2].(int64)
		switch {
		case 0 < k && k <= int64(len(parts)):
			return parts[k-1]
		case 0 > k && -k <= int64(len(parts)) && k != math.MinInt64:
			return parts[int64(len(parts))+k]
		}
		return ""
	case opSubstr: // the characters at positions p, start <= p < start+length
		start := big.NewInt(v[1].(int64))
		end := new(big.Int).Lsh(big.NewInt(1), 80)
		if len(v) == 3 {
			end.Add(start, big.NewInt(v[2].(int64)))
		}
		out := ""
		for i, r := range []rune(s) {
			if p := big.NewInt(int64(i + 1)); start.Cmp(p) <= 0 && p.Cmp(end) < 0 {
				out += string(r)
			}
		}
		return out
	}
	panic(fmt.Sprintf("the interpreter does not know operation %d", n.op))
}

func likePattern(pattern string, escape rune) *regexp.Regexp {
	re, escaped := "", false
	for _, r := range pattern {
		switch {
		case escaped:
			re, escaped = re+regexp.QuoteMeta(string(r)), false
		case r == escape:
			escaped = true
		case r == '%':
			re += ".*"
		case r == '_':
			re += "."
		default:
			re += regexp.QuoteMeta(string(r))
		}
	}
	if escaped {
		re += regexp.QuoteMeta(string(escape))
	}
	return regexp.MustCompile("(?s)^(?:" + re + ")$")
}

func (in *interpreter) cast(n *node, v any) any {
	switch x := v.(type) {
	case bool:
		if n.typ == batch.Bigint {
			return map[bool]int64{true: 1}[x]
		}
		return fmt.Sprint(x)
	case float64:
		if n.typ == batch.String {
			return doubleText(x)
		}
		z, _ := new(big.Float).SetFloat64(clampNaN(x)).Int(nil)
		if z == nil { // an infinity
			z = new(big.Int).Lsh(big.NewInt(1), 70)
		}
		return in.bounded(z)
	case int64:
		switch {
		case n.args[0].typ == batch.Timestamp:
			return timeText(x)
		case n.typ == batch.Boolean:
			return x != 0
		case n.typ == batch.Double:
			return float64(x)
		}
		return strconv.FormatInt(x, 10)
	}
	s := v.(string)
	switch {
	case n.typ == batch.String && !utf8.ValidString(s):
		in.errs = append(in.errs, "cannot cast bytes that are no UTF-8 to string")
		return nil
	case n.typ.Variable():
		return s
	}
	if r := parseText(n.typ, strings.Trim(s, " \t\r\n")); r != nil {
		return r
	}
	in.errs = append(in.errs, cannotCast([]byte(s), n.typ))
	return nil
}

func clampNaN(x float64) float64 {
	if math.IsNaN(x) {
		return math.Inf(1)
	}
	return x
}

func doubleText(x float64) string {
	switch a := math.Abs(x); {
	case math.IsNaN(x):
		return "NaN"
	case math.IsInf(x, 1):
		return "Infinity"
	case math.IsInf(x, -1):
		return "-Infinity"
	case x != 0 && (a < 1e-6 || a >= 1e21):
		return strconv.FormatFloat(x, 'e', -1, 64)
	}
	return strconv.FormatFloat(x, 'f', -1, 64)
}

func timeText(us int64) string {
	switch us {
	case math.MinInt64:
		return "-inf"
	case math.MaxInt64:
		return "+inf"
	}
	return time.UnixMicro(us).UTC().Format(time.RFC3339Nano)
}

// parseText reads what the random texts contain; nil if it is no such value.
func parseText(t batch.Type, s string) any {
	switch t {
	case batch.Boolean:
		switch strings.ToLower(s) {
		case "true", "t", "yes", "y", "on", "1":
			return true
		case "false", "f", "no", "n", "off", "0":
			return false
		}
		return nil
	case batch.Bigint:
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return i
		}
		return nil
	case batch.Double:
		if regexp.MustCompile(`(?i)^([+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?|nan)$`).MatchString(s) {
			if f, err := strconv.ParseFloat(s, 64); err == nil {
				return f
			}
		}
		return nil
	}
	s = strings.ToUpper(s)
	if !regexp.MustCompile(`^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)?)?$`).MatchString(s) {
		return nil // time.Parse takes more than we do
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15:04Z07:00", "2006-01-02"} {
		if len(s) > 10 && s[10] == ' ' {
			s = s[:10] + "T" + s[11:]
		}
		if ts, err := time.Parse(layout, s); err == nil {
			return ts.UnixMicro()
		}
	}
	return nil
}
