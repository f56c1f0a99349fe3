package batch

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// TestDirectWritingEqualsSetters writes the same rows with the setters and
// directly, the direct ones with detours: a wrong value first, nulls that are
// forgotten again, repeated rows, columns in any order.
func TestDirectWritingEqualsSetters(t *testing.T) {
	s := MustSchema(Field{"b", Boolean}, Field{"i", Bigint}, Field{"d", Double}, Field{"s", String}, Field{"x", Bytes}, Field{"t", Timestamp})
	pool := NewPool(0, nil)
	rapid.Check(t, func(t *rapid.T) {
		want, got := NewBuilder(pool, s), NewBuilder(pool, s)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			n := rapid.IntRange(1, 5).Draw(t, "rows")
			values := rapid.SliceOfN(rapid.IntRange(-1, 300), s.Len(), s.Len()).Draw(t, "values") // -1: null
			if rapid.IntRange(0, 3).Draw(t, "setters") == 0 {
				n = 1
				set(got, values)
			} else {
				direct(t, got, values, n)
			}
			for range n {
				set(want, values)
			}
		}
		a, b := got.Take(), want.Take()
		if err := a.Check(); err != nil {
			t.Fatal(err)
		}
		if x, y := dump(a), dump(b); x != y {
			t.Fatalf("%s\nwant\n%s", x, y)
		}
		a.Release()
		b.Release()
	})
}

func set(bl *Builder, values []int) {
	for i, v := range values {
		if v < 0 {
			continue
		}
		switch bl.Schema().Field(i).Type {
		case Boolean:
			bl.SetBool(i, v%2 == 0)
		case Bigint, Timestamp:
			bl.SetInt(i, int64(v))
		case Double:
			bl.SetDouble(i, float64(v))
		default:
			bl.SetBytes(i, make([]byte, v))
		}
	}
	bl.EndRow(7)
}

func direct(t *rapid.T, bl *Builder, values []int, n int) {
	cols := bl.Columns()
	if rapid.Bool().Draw(t, "forget") {
		for _, c := range cols {
			c.PutNull(bl.Len())
			c.PutNull(bl.Len() + 1)
		}
		bl.Forget(bl.Len() + 2)
	}
	for _, i := range rapid.Permutation([]int{0, 1, 2, 3, 4, 5}).Draw(t, "order") {
		c, at := cols[i], bl.Len()
		for _, v := range []int{rapid.IntRange(0, 400).Draw(t, "wrong"), values[i]} {
			switch {
			case v < 0:
				c.PutNull(at)
			case c.Type == Boolean:
				c.PutBool(at, v%2 == 0)
			case c.Type == Bigint || c.Type == Timestamp:
				c.PutInt(at, int64(v))
			case c.Type == Double:
				c.PutDouble(at, float64(v))
			default:
				c.PutBytes(at, make([]byte, v))
			}
		}
		c.Repeat(at, n-1)
	}
	bl.Extend(n, 7)
}

func dump(b *Batch) (out string) {
	for i := range b.Rows {
		out += fmt.Sprint(b.Times[i])
		for _, c := range b.Cols {
			switch {
			case c.IsNull(i):
				out += " null"
			case c.Type == Boolean:
				out += fmt.Sprint(" ", c.Bits.Get(i))
			case c.Type == Double:
				out += fmt.Sprint(" ", c.Doubles[i])
			case c.Type.Variable():
				out += fmt.Sprint(" ", len(c.At(i)), c.At(i))
			default:
				out += fmt.Sprint(" ", c.Ints[i])
			}
		}
		out += "\n"
	}
	return out
}
