package main

import (
	"fmt"
	"image/color"
	"os"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The charts have a background of their own, to be legible on a dark page too.
var (
	paper  = color.RGBA{0xfa, 0xfa, 0xf7, 0xff}
	ink    = color.RGBA{0x22, 0x22, 0x22, 0xff}
	kernel = color.RGBA{0x8a, 0x8f, 0x98, 0xff}
	own    = color.RGBA{0x1f, 0x6f, 0xb4, 0xff}
	others = color.RGBA{0xd0, 0xa5, 0x5a, 0xff}
)

// A bar is one value of a chart; note stands behind it.
type bar struct {
	name  string
	value float64
	note  string
}

func colorOf(name string) color.Color {
	switch {
	case strings.HasPrefix(name, "tele"):
		return own
	case strings.HasPrefix(name, "the kernel"), strings.HasPrefix(name, "the command"), strings.HasPrefix(name, "raw "),
		strings.HasPrefix(name, "a pipe"), strings.HasPrefix(name, "/bin/true"):
		return kernel
	}
	return others
}

func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.BackgroundColor = paper
	for _, style := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label,
		&p.Y.Tick.Label, &p.Legend.TextStyle} {
		style.Font.Variant = "Sans"
		style.Font.Size = 11
		style.Color = ink
	}
	p.Title.Padding = vg.Points(8)
	return p
}

// bars writes a chart of horizontal bars, the first on top.
func bars(path, title, unit string, all []bar) error {
	p := newPlot(title)
	p.X.Label.Text = unit
	p.X.Min = 0
	names, labels := make([]string, len(all)), plotter.XYLabels{}
	for i, b := range all {
		at := len(all) - 1 - i
		names[at] = b.name
		one, err := plotter.NewBarChart(plotter.Values{b.value}, vg.Points(13))
		if err != nil {
			return err
		}
		one.Horizontal, one.XMin, one.Color, one.LineStyle.Width = true, float64(at), colorOf(b.name), 0
		p.Add(one)
		p.X.Max = max(p.X.Max, b.value*1.25) // room for the note
		labels.XYs = append(labels.XYs, plotter.XY{X: b.value, Y: float64(at)})
		labels.Labels = append(labels.Labels, b.note)
	}
	notes, err := plotter.NewLabels(labels)
	if err != nil {
		return err
	}
	for i := range notes.TextStyle {
		notes.TextStyle[i].Font = font.Font{Typeface: "Liberation", Variant: "Sans", Size: 10}
		notes.TextStyle[i].Color = ink
		notes.TextStyle[i].YAlign = text.YCenter
	}
	notes.Offset = vg.Point{X: vg.Points(4), Y: vg.Points(1.5)}
	p.Add(notes)
	p.NominalY(names...)
	return save(p, path, 640, 80+20*len(all))
}

// lines writes a chart with a line for each name, over the same values of x.
func lines(path, title, xLabel, yLabel string, x []float64, names []string, y map[string][]float64) error {
	p := newPlot(title)
	p.X.Label.Text, p.Y.Label.Text = xLabel, yLabel
	p.X.Scale = plot.LogScale{}
	ticks := plot.ConstantTicks{}
	for _, v := range x {
		ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprint(v)})
	}
	p.X.Tick.Marker = ticks
	p.Y.Min = 0
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.Padding = vg.Points(2)
	shades := map[color.Color]int{}
	for _, name := range names {
		var points plotter.XYs
		for i := range y[name] {
			points = append(points, plotter.XY{X: x[i], Y: y[name][i]})
			p.Y.Max = max(p.Y.Max, y[name][i]*1.6) // room for the legend
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return err
		}
		c := colorOf(name)
		line.Color, line.Width = c, vg.Points(1.8)
		line.Dashes = [][]vg.Length{nil, {vg.Points(6), vg.Points(3)}, {vg.Points(2), vg.Points(2)}, {vg.Points(8), vg.Points(2), vg.Points(2), vg.Points(2)}}[shades[c]%4]
		shades[c]++
		dots.Shape, dots.Color, dots.Radius = draw.CircleGlyph{}, c, vg.Points(2.5)
		p.Add(line, dots)
		p.Legend.Add(name, line, dots)
	}
	return save(p, path, 640, 380)
}

func save(p *plot.Plot, path string, width, height int) error {
	canvas := vgsvg.New(vg.Points(float64(width)), vg.Points(float64(height)))
	whole := draw.New(canvas)
	whole.SetColor(paper)
	whole.Fill(whole.Rectangle.Path())
	margin := vg.Points(10)
	p.Draw(draw.Crop(whole, margin, -margin, margin, -margin))
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(f); err != nil {
		_ = f.Close() // the first error is the one to tell
		return err
	}
	return f.Close()
}
